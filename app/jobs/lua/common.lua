-- What all steps share. Each file beside this one is one step: Redis does it whole, with no other in between.
--
-- Keys, behind the prefix in KEYS[1]:
--   job:<id>          hash    the job; bytes: what it takes, images and results
--   images:<id>       hash    <number> → the picture, n<number> → its name; gone as soon as it is predicted
--   queue:<id>        zset    numbers of the images that wait
--   attempts:<id>     hash    <number> → how often it was begun
--   results:<id>      zset    answers as JSON, by number
--   all, owner:<o>    zset    ids by the time that they were made
--   open              zset    the same, of jobs that are queued or running
--   ended, expired    zset    ids by the time that they ended
--   line              zset    ids of jobs with images that wait, by turn
--   keys:<o>          hash    Idempotency-Key → id
--   webhooks          zset    ids whose end is to be told, by the time of the next try
--   workers           zset    workers by the end of their lease, in Redis' own time
--   claims:<worker>   hash    token → <id>:<number> that it is at
--   uploads           zset    <token>:<bytes> by the end of the room held for it; upload:<token> as images:<id>
--   counts            hash    jobs in each state, images_waiting, bytes
--   turn              number  the last one given
local P = KEYS[1]
local call = redis.call

-- Redis refuses the first write of a script while it has no memory left, unless that write needs none. Steps that end
-- something, and so free memory, go on all the same.
local function even_when_full()
  call('DEL', P .. 'nothing')
end

local function now_seconds()
  local time = call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end

local function count(what, more)
  -- Zero has a sign in Lua, which Redis does not understand.
  call('HINCRBY', P .. 'counts', what, more + 0)
end

local function field(id, name)
  return call('HGET', P .. 'job:' .. id, name)
end

local function row(id)
  return call('HGETALL', P .. 'job:' .. id)
end

local function take_bytes(id, more)
  call('HINCRBY', P .. 'job:' .. id, 'bytes', more + 0)
  count('bytes', more)
end

local function set_state(id, state)
  local before = field(id, 'state')
  if before ~= state then
    count(before, -1)
    count(state, 1)
    call('HSET', P .. 'job:' .. id, 'state', state)
  end
end

-- At the end of the line of those who have not had a turn yet, and so before all who have.
local function first_turn(id)
  local turn = call('INCR', P .. 'turn') - 1e15
  call('HSET', P .. 'job:' .. id, 'turn', string.format('%.0f', turn))
  call('ZADD', P .. 'line', turn, id)
end

-- An image back into the line; nothing where its job is gone.
local function put_back(what, is_counted)
  local id, number = string.match(what, '^(%x+):(%d+)$')
  local turn = field(id, 'turn')
  if not turn then return 0 end
  call('ZADD', P .. 'queue:' .. id, number, number)
  call('ZADD', P .. 'line', turn, id)
  if not is_counted then call('HINCRBY', P .. 'attempts:' .. id, number, -1) end
  return 1
end

-- Everything of a worker that is dead back into the line. What it was at may have killed it.
local function bury(worker)
  local again = 0
  for _, what in ipairs(call('HVALS', P .. 'claims:' .. worker)) do
    again = again + put_back(what, true)
  end
  call('DEL', P .. 'claims:' .. worker)
  call('ZREM', P .. 'workers', worker)
  return again
end

-- Images, results and what is known of them; the job itself stays.
local function drop_contents(id)
  for _, kind in ipairs({'images:', 'queue:', 'attempts:', 'results:'}) do
    call('UNLINK', P .. kind .. id)
  end
  call('ZREM', P .. 'line', id)
  take_bytes(id, -tonumber(field(id, 'bytes')))
end

local function forget(id)
  drop_contents(id)
  local job = call('HMGET', P .. 'job:' .. id, 'owner', 'key', 'state', 'total', 'done')
  for _, kind in ipairs({'all', 'owner:' .. job[1], 'open', 'ended', 'expired', 'webhooks'}) do
    call('ZREM', P .. kind, id)
  end
  if job[2] ~= '' then call('HDEL', P .. 'keys:' .. job[1], job[2]) end
  if job[3] == 'queued' or job[3] == 'running' then count('images_waiting', job[5] - job[4]) end
  count(job[3], -1)
  call('DEL', P .. 'job:' .. id)
end

-- Why no job may be taken: the same was, under the same key; or as many wait as may.
local function refusal(owner, key, digest, max_queued)
  local id = key ~= '' and call('HGET', P .. 'keys:' .. owner, key)
  if id then
    if field(id, 'digest') == digest then return {'known', row(id)} end
    return {'reused'}
  end
  local waiting = call('ZCARD', P .. 'open')
  if waiting >= tonumber(max_queued) then return {'full', waiting} end
end
