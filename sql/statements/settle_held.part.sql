-- Settles held subscriptions: "found" has the id, the result ("sent" or "failed"), and the words of who says so. What is known not to be there
-- may be sent again as if for the first time.
  update subscriptions s
     set status = as_state(f.result, s.status), held_at = null, last_decided_by = f.words,
         last_error = case f.result when 'failed' then f.words end,
         ambiguous_since = case f.result when 'sent' then s.ambiguous_since end, last_ambiguous = false, updated_at = now()
    from found f where s.id = f.id
  returning s.id
