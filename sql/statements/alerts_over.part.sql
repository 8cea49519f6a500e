-- A clock that was ahead said so: it is over after it began and was told.
                      started_at = least(a.started_at, now()),
                      last_notified_at = case when a.last_notified_at >= now() then now() - interval '1 us' else a.last_notified_at end
