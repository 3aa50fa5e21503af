-- Forget a job. ARGV: id, 'owner' or 'all', owner. Returns it as it was; false where there is none, or not of this owner.
even_when_full()
local id, whose, owner = unpack(ARGV)
local is_of = field(id, 'owner')
if not is_of or (whose == 'owner' and is_of ~= owner) then return false end
local was = row(id)
forget(id)
return was
