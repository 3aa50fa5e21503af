-- Room for the images of a new job, before they are sent. ARGV: owner, key, digest, most open jobs, token, bytes, most
-- bytes, seconds until the room is given to others.
local owner, key, digest, max_queued, token, bytes, max_bytes, seconds = unpack(ARGV)
local refused = refusal(owner, key, digest, max_queued)
if refused then return refused end

local taken = tonumber(call('HGET', P .. 'counts', 'bytes') or 0)
for _, upload in ipairs(call('ZRANGE', P .. 'uploads', 0, -1)) do
  taken = taken + tonumber(string.match(upload, ':(%d+)$'))
end
if taken + tonumber(bytes) > tonumber(max_bytes) then return {'no room', taken} end
call('ZADD', P .. 'uploads', now_seconds() + tonumber(seconds), token .. ':' .. bytes)
return {'reserved'}
