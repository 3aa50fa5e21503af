-- An upload that comes to nothing. ARGV: token, bytes.
even_when_full()
call('UNLINK', P .. 'upload:' .. ARGV[1])
call('ZREM', P .. 'uploads', ARGV[1] .. ':' .. ARGV[2])
