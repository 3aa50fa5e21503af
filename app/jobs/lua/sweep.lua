-- Uploads that nobody finished go, and the room that was held for them.
even_when_full()
for _, upload in ipairs(call('ZRANGEBYSCORE', P .. 'uploads', '-inf', now_seconds())) do
  call('UNLINK', P .. 'upload:' .. string.match(upload, '^(%x+):'))
  call('ZREM', P .. 'uploads', upload)
end
