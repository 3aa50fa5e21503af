-- A job whose end is to be sent, which nobody else sends meanwhile. ARGV: time, time until it is one's own, time after
-- which it can only have been put off before a clock was set back, and the receivers that are being sent to.
local now, until_time, far = ARGV[1], ARGV[2], ARGV[3]
local busy = {}
for number = 4, #ARGV do busy[ARGV[number]] = true end
for _, span in ipairs({{'-inf', now}, {'(' .. far, '+inf'}}) do
  for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'webhooks', span[1], span[2])) do
    local receiver = string.match(field(id, 'url') or '', '^%a+://[^/?#]*')
    if receiver and not busy[string.lower(receiver)] then
      call('ZADD', P .. 'webhooks', until_time, id)
      return row(id)
    end
  end
end
return false
