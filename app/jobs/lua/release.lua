-- An image back into the line, where it is still this worker's. ARGV: worker, token, id, number, 1 where the attempt counts.
even_when_full()
local worker, token, id, number, is_counted = unpack(ARGV)
local what = id .. ':' .. number
if call('HGET', P .. 'claims:' .. worker, token) ~= what then return end
call('HDEL', P .. 'claims:' .. worker, token)
put_back(what, is_counted == '1')
