-- Results that were kept long enough go, later the jobs too. ARGV: the end of jobs that expire, of those to forget, most
-- of each. Returns how many expired.
even_when_full()
local until_time, forget_time, most = unpack(ARGV)
local ids = call('ZRANGEBYSCORE', P .. 'ended', '-inf', until_time, 'WITHSCORES', 'LIMIT', 0, most)
for at = 1, #ids, 2 do
  drop_contents(ids[at])
  set_state(ids[at], 'expired')
  call('ZREM', P .. 'ended', ids[at])
  call('ZADD', P .. 'expired', ids[at + 1], ids[at])
end
for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'expired', '-inf', forget_time, 'LIMIT', 0, most)) do
  forget(id)
end
return #ids / 2
