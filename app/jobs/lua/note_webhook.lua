-- What came of telling an end. ARGV: id, state, attempts, error, time of the next try or ''.
even_when_full()
local id, state, attempts, said, next_at = unpack(ARGV)
if not field(id, 'url') then return end
call('HSET', P .. 'job:' .. id, 'webhook_state', state, 'webhook_attempts', attempts, 'webhook_error', said)
if next_at == '' then
  call('ZREM', P .. 'webhooks', id)
else
  call('ZADD', P .. 'webhooks', next_at, id)
end
