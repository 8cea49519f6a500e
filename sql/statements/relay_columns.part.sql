         f.id, f.event_id, f.event_type, f.created_at, f.subscription_id, f.integration_id, f.integration_name,
         f.integration_type, f.order_id, f.origin, f.cpf, f.status, f.sent_at, f.scheduled_to,
         f.subscription_created_at, f.subscription_updated_at, f.attempt, f.response, f.response_truncated,
         f.error_message, f.ambiguous, f.next_attempt_at, f.traceparent
