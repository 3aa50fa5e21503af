-- Images without a prediction back into the line. ARGV: id, the end of jobs that have expired. False: it cannot be.
local id, until_time = unpack(ARGV)
local job = call('HMGET', P .. 'job:' .. id, 'state', 'failed', 'ended_at', 'url', 'created_at')
local is_ended = job[1] == 'succeeded' or job[1] == 'failed'
if not is_ended or job[2] == '0' or tonumber(job[3]) <= tonumber(until_time) then return false end

-- Pictures that were predicted are gone, those that are left have an error as their result.
for _, name in ipairs(call('HKEYS', P .. 'images:' .. id)) do
  local number = tonumber(name)
  if number then
    take_bytes(id, -string.len(call('ZRANGEBYSCORE', P .. 'results:' .. id, number, number)[1]))
    call('ZREMRANGEBYSCORE', P .. 'results:' .. id, number, number)
    call('ZADD', P .. 'queue:' .. id, number, number)
  end
end
call('HSET', P .. 'job:' .. id, 'failed', 0)
call('HINCRBY', P .. 'job:' .. id, 'done', -job[2])
call('HDEL', P .. 'job:' .. id, 'ended_at')
call('ZREM', P .. 'ended', id)
call('ZREM', P .. 'webhooks', id)
call('ZADD', P .. 'open', job[5], id)
if job[4] then
  call('HSET', P .. 'job:' .. id, 'webhook_state', 'waiting', 'webhook_attempts', 0, 'webhook_error', '')
end
count('images_waiting', job[2])
set_state(id, 'queued')
first_turn(id)
return row(id)
