-- A job whose end is to be told, which nobody else tells meanwhile. ARGV: time, time until it is one's own.
local now, until_time = unpack(ARGV)
local id = call('ZRANGEBYSCORE', P .. 'webhooks', '-inf', now, 'LIMIT', 0, 1)[1]
if not id then return false end
call('ZADD', P .. 'webhooks', until_time, id)
return row(id)
