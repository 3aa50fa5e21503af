-- A worker lives. ARGV: worker, seconds of its lease, one that is known to be dead or '', the next token, tokens in hand.
-- Returns how many images of dead workers are in the line again.
even_when_full()
local worker, seconds, dead, next_token = unpack(ARGV)
local now = now_seconds()
local again = 0
if dead ~= '' then again = bury(dead) end
for _, other in ipairs(call('ZRANGEBYSCORE', P .. 'workers', '-inf', now)) do
  if other ~= worker then again = again + bury(other) end
end
call('ZADD', P .. 'workers', now + tonumber(seconds), worker)

-- What it began and never heard of, or could not write the result of, while Redis was away. No fault of the image.
local in_hand = {}
for at = 5, #ARGV do in_hand[ARGV[at]] = true end
local claims = call('HGETALL', P .. 'claims:' .. worker)
for at = 1, #claims, 2 do
  local token = claims[at]
  if tonumber(token) < tonumber(next_token) and not in_hand[token] then
    put_back(claims[at + 1], false)
    call('HDEL', P .. 'claims:' .. worker, token)
  end
end
return again
