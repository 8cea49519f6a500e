-- The claim "r" of the row "s" still stands: it was neither ended by others, nor sent to an integration that the row has no longer.
     s.id = r.id and s.claim_token = r.token and s.integration_id is not distinct from r.integration
