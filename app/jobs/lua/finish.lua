-- The result of an image. ARGV: worker, token, id, number, answer, 1 where it has no prediction, time. Returns the job
-- when this ended it; false also where the image is another's by now, or the job is gone.
even_when_full()
local worker, token, id, number, answer, is_failed, now = unpack(ARGV)
if call('HGET', P .. 'claims:' .. worker, token) ~= id .. ':' .. number then return false end
call('HDEL', P .. 'claims:' .. worker, token)
if not field(id, 'state') then return false end

take_bytes(id, string.len(answer))
call('ZADD', P .. 'results:' .. id, number, answer)
call('HDEL', P .. 'attempts:' .. id, number)
call('HINCRBY', P .. 'job:' .. id, 'failed', is_failed)
if is_failed == '0' then
  -- Others may be tried again.
  take_bytes(id, -call('HSTRLEN', P .. 'images:' .. id, number))
  call('HDEL', P .. 'images:' .. id, number, 'n' .. number)
end
count('images_waiting', -1)
local done = call('HINCRBY', P .. 'job:' .. id, 'done', 1)
local job = call('HMGET', P .. 'job:' .. id, 'total', 'failed', 'url')
if done < tonumber(job[1]) then return false end

set_state(id, job[2] == job[1] and 'failed' or 'succeeded')
call('HSET', P .. 'job:' .. id, 'ended_at', now)
call('ZREM', P .. 'open', id)
call('ZADD', P .. 'ended', now, id)
if job[3] then
  call('HSET', P .. 'job:' .. id, 'webhook_state', 'pending')
  call('ZADD', P .. 'webhooks', now, id)
end
return row(id)
