-- A job whose images were sent becomes one. ARGV: owner, key, digest, most open jobs, token, bytes, id, time, images,
-- task, wishes, request id, url of the webhook.
local owner, key, digest, max_queued, token, bytes, id, now, total, task, wishes, request_id, url = unpack(ARGV)
local refused = refusal(owner, key, digest, max_queued)
if refused then return refused end
if call('ZREM', P .. 'uploads', token .. ':' .. bytes) == 0 then return {'lost'} end
if call('HLEN', P .. 'upload:' .. token) ~= 2 * tonumber(total) then return {'lost'} end

call('RENAME', P .. 'upload:' .. token, P .. 'images:' .. id)
call('HSET', P .. 'job:' .. id, 'id', id, 'owner', owner, 'key', key, 'digest', digest, 'state', 'queued',
  'task', task, 'wishes', wishes, 'total', total, 'done', 0, 'failed', 0, 'created_at', now, 'request_id', request_id,
  'bytes', bytes)
if url ~= '' then
  call('HSET', P .. 'job:' .. id, 'url', url, 'webhook_state', 'waiting', 'webhook_attempts', 0, 'webhook_error', '')
end
if key ~= '' then call('HSET', P .. 'keys:' .. owner, key, id) end
for _, kind in ipairs({'all', 'owner:' .. owner, 'open'}) do
  call('ZADD', P .. kind, now, id)
end
for number = 1, tonumber(total) do
  call('ZADD', P .. 'queue:' .. id, number, number)
end
first_turn(id)
count('queued', 1)
count('images_waiting', total)
count('bytes', bytes)
return {'taken', row(id)}
