/* MESSAGE_IDs of the journal, one for each kind of line that an operator may want to find or to have
 * explained.
 *
 * Random UUIDs, never reused and never changed once released. Each has its entry in the message catalog
 * (journalctl -x), and a test holds the two together. */
#pragma once

/* The daemon runs: configuration valid, threads started. */
#define MSG_STARTED "3633a151c64f43e3a15f29258b758303"
/* A stop was asked for; deliveries in flight are drained. */
#define MSG_STOPPING "f6d5b2ec36fb4dcb9b01b25c2f00b147"
/* All threads have ended; the process exits. */
#define MSG_STOPPED "99bb2f393f57440a9a93e6471715a441"
/* The configuration has errors; nothing was started. */
#define MSG_CONFIG_INVALID "a85c41edd0ad425c84a55a48032850e6"
/* A new configuration is in use. */
#define MSG_RELOADED "1053c15179dd4a7c8a86b9857c33fbc3"
/* The new configuration has errors; the old one stays. */
#define MSG_RELOAD_REFUSED "31053229003f47be8324cbde063fe3b4"
/* Keys have changed that only a restart takes over. */
#define MSG_RESTART_NEEDED "10b3852d3933442291df36ae6eb28575"
/* Postgres cannot be reached; tried again with growing pauses. */
#define MSG_DATABASE_LOST "8cc2b9e85dcc4e9bab907f917be3bd80"
/* The server takes no writes: a standby, or frozen. */
#define MSG_DATABASE_READ_ONLY "5f0f4c1e9d1a4f4bb7a0c2c3e1d86b97"
/* Postgres answers again. */
#define MSG_DATABASE_BACK "e3215bf2e394447b909d97230b882b41"
/* No Kafka broker can be reached; deliveries go on, the ledger waits. */
#define MSG_KAFKA_LOST "c5eb2a59b7d848f8b8ee36dd25ac43c2"
/* Kafka answers again. */
#define MSG_KAFKA_BACK "88e2e68629984111a89cc278a4129e90"
/* The schema does not fit this version; the message names the command that repairs it. */
#define MSG_SCHEMA_MISMATCH "12611a021ff7414f8a0dcea9a6310e11"
/* A subscription has failed for good. */
#define MSG_DELIVERY_FAILED "65c144aadbcf4e4fa6a17488e127cfae"
/* A lease expired, or a result came after its lease was lost and changed nothing. */
#define MSG_LEASE_LOST "96103c98d764450896b8fdb5ac7f65b3"
/* An integration was paused, with the reason. */
#define MSG_INTEGRATION_PAUSED "db1e7c56c72e43b392aedc693dde8b42"
/* Several attempts in a row at one institution failed; they are repeated. */
#define MSG_INSTITUTION_LOST "3b858a703c1d4f8da65b11b901e734c1"
/* That institution takes subscriptions again. */
#define MSG_INSTITUTION_BACK "dbb32f7935e44d0798e1482072309c37"
/* This machine lacks what a request needs (descriptors, ports, memory, a route), or no longer does. */
#define MSG_SHORTAGE "f2353ca9c262463fb8ae6c181837933a"
/* The database refused a result for a reason in its data; the others were written. */
#define MSG_SETTLE_SPLIT "7b05912b8ee8457fa164423da3e41fc9"
/* The database refuses to change one subscription as a claim or an ended lease has to; others go on. */
#define MSG_CHANGE_REFUSED "3b41c610aaa548ec865f399b9a0db593"
/* Other sessions' locks keep claims or results waiting, or no longer do. */
#define MSG_LOCKED "7e58179e18284553bb56ce8bf39a385a"
/* This daemon's relay took over or gave up the leadership. */
#define MSG_RELAY_LEADER "2a87a196cea44928a4530ca44616f449"
/* Kafka can never take one event; the relay waits on it rather than drop it. */
#define MSG_RELAY_STOPPED "f9f214be35cb4f3f8e8de60fad9faf86"
/* A Kafka message could not be handled and was put aside. */
#define MSG_DEAD_LETTER "d0103b15d38749c99343fb750be58f84"
/* Another installation publishes to our topics. */
#define MSG_SHARED_TOPICS "c1f5b1f2e8c14d0a8a5c5f2a9c4d7e36"
/* Messages were gone before a consumer group read them, or a topic was made anew under it. */
#define MSG_CONSUMER_GAP "ea68e596013749f083257da91ebd2a4d"
/* A thread makes no progress; systemd's watchdog is no longer fed. */
#define MSG_THREAD_STUCK "ac69ccb9183c48178beeff797ccb841b"
