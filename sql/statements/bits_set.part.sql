-- How many events the chunk b marks as handled.
       length(replace(('x' || encode(b.bits, 'hex'))::bit(8192)::text, '0', ''))
