-- Jobs, the newest first. ARGV: 'owner' or 'all', owner, 'open' or '', id of the job before them or '', most of them.
local whose, owner, is_open, before, most = unpack(ARGV)
local index = is_open ~= '' and 'open' or whose == 'owner' and 'owner:' .. owner or 'all'
local highest = '+inf'
if before ~= '' then
  highest = call('ZSCORE', P .. 'all', before)
  if not highest then return {} end
end

local found, offset = {}, 0
while true do
  local page = call('ZREVRANGEBYSCORE', P .. index, highest, '-inf', 'WITHSCORES', 'LIMIT', offset, 200)
  for at = 1, #page, 2 do
    local id = page[at]
    local is_older = before == '' or page[at + 1] ~= highest or id < before
    if is_older and (whose == 'all' or field(id, 'owner') == owner) then
      found[#found + 1] = row(id)
      if #found == tonumber(most) then return found end
    end
  end
  if #page < 400 then return found end
  offset = offset + 200
end
