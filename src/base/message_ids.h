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
/* Secrets of the configuration are not there to be read; waited for. */
#define MSG_SECRETS_ABSENT "c80d3b21cd4b4191a9c101173f4d3f36"
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
/* The server refuses statements of deliveries (a full disk, a revoked right), or no longer does. */
#define MSG_DATABASE_REFUSES "a9f987bc15274f06a6bb343d050fec47"
/* Postgres answers again. */
#define MSG_DATABASE_BACK "e3215bf2e394447b909d97230b882b41"
/* The clocks of this machine and of the database server are far apart, or no more. */
#define MSG_CLOCKS_DIFFER "6d78c4dbe24b40389a792a679970caee"
/* No Kafka broker can be reached; deliveries go on, the ledger waits. */
#define MSG_KAFKA_LOST "c5eb2a59b7d848f8b8ee36dd25ac43c2"
/* Kafka answers again. */
#define MSG_KAFKA_BACK "88e2e68629984111a89cc278a4129e90"
/* The schema does not fit this version; the message names the command that repairs it. */
#define MSG_SCHEMA_MISMATCH "12611a021ff7414f8a0dcea9a6310e11"
/* A subscription has failed for good. */
#define MSG_DELIVERY_FAILED "65c144aadbcf4e4fa6a17488e127cfae"
/* A subscription that the institution may have is held for a person. */
#define MSG_DELIVERY_HELD "621b49b7c6754d1c8f3b09b140f0c9e4"
/* More subscriptions of one integration have failed, or are held, than are said one by one. */
#define MSG_DELIVERIES_FAILED "799d12cd5e4f4fb9abff4da05e98c64c"
/* A lease expired, or a result came after its lease was lost and changed nothing. */
#define MSG_LEASE_LOST "96103c98d764450896b8fdb5ac7f65b3"
/* An integration was paused, with the reason. */
#define MSG_INTEGRATION_PAUSED "db1e7c56c72e43b392aedc693dde8b42"
/* Several attempts in a row at one institution failed; they are repeated. */
#define MSG_INSTITUTION_LOST "3b858a703c1d4f8da65b11b901e734c1"
/* An institution has refused several subscriptions in a row for their data. */
#define MSG_INSTITUTION_REFUSES "0947929021074d1fbc3f06d7ec911455"
/* An institution asks for much time. */
#define MSG_INSTITUTION_WAITS "1e7a78a1155e45a4b3bbc4d80da557a7"
/* That institution takes subscriptions again. */
#define MSG_INSTITUTION_BACK "dbb32f7935e44d0798e1482072309c37"
/* The circuit of an integration has opened: nothing is sent but a probe now and then. */
#define MSG_CIRCUIT_OPEN "269796e3d9e64087ac6e8cb046188c9d"
/* It has closed. */
#define MSG_CIRCUIT_CLOSED "b1e9c060e08347d08c3b87bb3ac5cf51"
/* An integration's settings ask for less of TLS than all others get. */
#define MSG_WEAK_TLS "52e12757e89442d3ad452728ffc22f6a"
/* This machine lacks what a request needs (descriptors, ports, memory, a route), or no longer does. */
#define MSG_SHORTAGE "f2353ca9c262463fb8ae6c181837933a"
/* The database refused a result for a reason in its data; the others were written. */
#define MSG_SETTLE_SPLIT "7b05912b8ee8457fa164423da3e41fc9"
/* The database refuses to change one subscription as a claim or an ended lease has to; others go on. */
#define MSG_CHANGE_REFUSED "3b41c610aaa548ec865f399b9a0db593"
/* Other sessions' locks keep claims or results waiting, or no longer do. */
#define MSG_LOCKED "7e58179e18284553bb56ce8bf39a385a"
/* Due subscriptions are not looked for, or those of some integrations only now and then; or no longer so. */
#define MSG_CLAIMS_BLIND "3ba80bf9bcf9474d2f4e38c4b8aab183"
/* This daemon's relay took over or gave up the leadership. */
#define MSG_RELAY_LEADER "2a87a196cea44928a4530ca44616f449"
/* Kafka can never take one event; the relay waits on it rather than drop it. */
#define MSG_RELAY_STOPPED "f9f214be35cb4f3f8e8de60fad9faf86"
/* The relay waits until Kafka has told our newest events, or no longer does. */
#define MSG_RELAY_LOOKS "cf400b733a8c407cbd07aab35f0787a2"
/* The database was set back, perhaps: ids are left out, so that none is given out twice. */
#define MSG_DATABASE_SET_BACK "2bf41cbe6b374be8b4973abac26751be"
/* Events have come with ledger ids that the relay had passed because nobody had them; it publishes them. */
#define MSG_LEDGER_REFILLED "948827bc33b546e28f88ff902dd2cacc"
/* Kafka lacks a topic, or forbids a topic or a group, or no longer does. */
#define MSG_KAFKA_TOPIC "114aab56a9064092a3608682998277db"
/* A topic of events is compacted, or no longer. */
#define MSG_KAFKA_COMPACTED "eccf4ddaa92d46dbb153e6422d6f10f7"
/* A Kafka message could not be handled and was put aside. */
#define MSG_DEAD_LETTER "d0103b15d38749c99343fb750be58f84"
/* A consumer group could not handle most of a batch and has stopped, or goes on. */
#define MSG_GROUP_STOPPED "5c4260e15b514ef7a38a2e28a5a69eba"
/* Another installation publishes to our topics. */
#define MSG_SHARED_TOPICS "c1f5b1f2e8c14d0a8a5c5f2a9c4d7e36"
/* Kafka has events in our name that are not in the ledger: they are passed over. */
#define MSG_UNKNOWN_EVENTS "8cf4a01dceac4db2933dfe97e3c93455"
/* Messages were gone before a consumer group read them, or a topic was made anew under it. */
#define MSG_CONSUMER_GAP "ea68e596013749f083257da91ebd2a4d"
/* A transaction that another program left open keeps a partition from being read, or does no more. */
#define MSG_HELD_BACK "cb393a5fe39747339b684a42b8ddb86c"
/* A checkpoint of the audit log, with the digest by which it can be told later. */
#define MSG_AUDIT_CHECKPOINT "a64faefab89e4737ba910eee8151b051"
/* A partition of the ledger, or dead letters, were older than they are to be kept, and have gone. */
#define MSG_RETENTION "be5d969460634970a8f2b1d4d0940b44"
/* A partition of the ledger is old enough to go, and stays, because somebody still needs it. */
#define MSG_RETENTION_WAITS "7f0a4974fa324f2cb97467e96c381a44"
/* Another program is a member of our consumer group, or is no more. */
#define MSG_GROUP_SHARED "8872f619d88a4949b7759accfcc816d5"
/* A thread makes no progress; systemd's watchdog is no longer fed. */
#define MSG_THREAD_STUCK "ac69ccb9183c48178beeff797ccb841b"
/* An alert has fired, or goes on. */
#define MSG_ALERT "8083811a0f844d2cb7d5f6c2abb10f55"
/* It is over. */
#define MSG_ALERT_RESOLVED "a4f74720fbb040a991232275ea84343f"
