-- Begin one image. ARGV: worker, seconds of its lease, token, time, ids of paused jobs. False where none waits.
even_when_full()
local worker, seconds, token, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local paused = {}
for number = 5, #ARGV do paused[ARGV[number]] = true end

local function next_in_line()
  for _, id in ipairs(call('ZRANGE', P .. 'line', 0, #ARGV - 4)) do
    if not paused[id] then return id end
  end
end

while true do
  local id = next_in_line()
  if not id then return false end
  local number = call('ZPOPMIN', P .. 'queue:' .. id)[1]
  if number then
    local turn = call('INCR', P .. 'turn')
    call('HSET', P .. 'job:' .. id, 'turn', turn)
    call('HSETNX', P .. 'job:' .. id, 'started_at', now)
    set_state(id, 'running')
    call('ZADD', P .. 'line', turn, id)
    if call('EXISTS', P .. 'queue:' .. id) == 0 then call('ZREM', P .. 'line', id) end
    -- Only a worker with a lease is looked after when it dies.
    call('ZADD', P .. 'workers', now_seconds() + tonumber(seconds), worker)
    call('HSET', P .. 'claims:' .. worker, token, id .. ':' .. number)
    local attempt = call('HINCRBY', P .. 'attempts:' .. id, number, 1)
    local image = call('HMGET', P .. 'images:' .. id, number, 'n' .. number)
    return {id, number, attempt, image[2], image[1], row(id)}
  end
  call('ZREM', P .. 'line', id)
end
