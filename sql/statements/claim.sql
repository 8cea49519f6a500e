-- Claims due rows, looking everywhere.
--
-- Entries of rows claimed lately stay in the index until the next VACUUM (one that no old snapshot keeps from removing
-- them), and each probe walks over them. So between two such looks claim_on goes on where each integration's last claim
-- ended; and when a look takes long, those that must not wait begin a little before the furthest claims ($16). Rows that
-- were committed late, or became due before that place, are found by the next look from the start.
-- include: claim_parameters.part.sql
-- include: claim_waiting.part.sql
-- include: claim_free.part.sql
-- include: claim_find.part.sql
, within as (
  select * from found
)
-- include: claim_spend.part.sql
-- include: claim_take.part.sql
