/* The bounds of everything that a peer or a user can make us hold. */
#ifndef BASE_LIMITS_H
#define BASE_LIMITS_H

#define LIMIT_HTTP_HEADER      (64u * 1024)        /* request line and headers */
#define LIMIT_HTTP_JSON_BODY   (4u * 1024 * 1024)  /* a JSON request */
#define LIMIT_HTTP_CONNECTIONS 1024                /* open Engine API connections */
#define LIMIT_RPC_MESSAGE      (16u * 1024 * 1024) /* one gRPC message */
#define LIMIT_RPC_CONNECTIONS  20000
#define LIMIT_RAFT_ENTRY       (1024u * 1024 * 4) /* one log entry, batch included */
#define LIMIT_RAFT_SNAPSHOT    (4ull * 1024 * 1024 * 1024)
#define LIMIT_SECRET           512000  /* exclusive, as in Swarm */
#define LIMIT_CONFIG           1024000 /* exclusive */
#define LIMIT_IMAGE_MANIFEST   (4u * 1024 * 1024)
#define LIMIT_IMAGE_CONFIG     (8u * 1024 * 1024)
#define LIMIT_LOG_LINE         (64u * 1024)

#endif
