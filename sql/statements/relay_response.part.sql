                                   case when e.event_type = 'sent' then e.response::text end
