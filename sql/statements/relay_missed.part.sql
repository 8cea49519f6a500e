-- The newest event up to the saved position was written after that: it was never published. Ids are drawn once, unless the ledger went
-- back with its sequence.
(exists (select from relay_state p cross join relay_saved s cross join
-- include: relay_newest.part.sql
                n where n.created_at > s.saved_at))
