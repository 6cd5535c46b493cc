/* Any bytes as JSON of any message: no crash, and what was read prints, reads back and packs. */
#include <stdint.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "proto/json.h"
#include "proto/objects.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static const ProtobufCMessageDescriptor *const types[] = {&pb__service_spec__descriptor,
	    &pb__cluster_spec__descriptor, &pb__node__descriptor, &pb__task__descriptor,
	    &pb__network_spec__descriptor, &pb__secret_spec__descriptor, &pb__service__descriptor};
	json_t *j;
	ProtobufCMessage *m, *again;

	if (n < 1)
		return 0;
	const ProtobufCMessageDescriptor *d = types[p[0] % ARRAY_LEN(types)];
	if (json_parse((const char *)p + 1, n - 1, &j, NULL) < 0)
		return 0;
	if (json_to_msg(j, d, &m, NULL) == 0) {
		json_t *out = json_from_msg(m);
		uint8_t *packed = xmalloc(protobuf_c_message_get_packed_size(m) + 1);
		protobuf_c_message_pack(m, packed);
		ASSERT(json_to_msg(out, d, &again, NULL) == 0);
		json_t *out2 = json_from_msg(again);
		ASSERT(json_equal(out, out2));
		json_decref(out);
		json_decref(out2);
		free(packed);
		protobuf_c_message_free_unpacked(m, NULL);
		protobuf_c_message_free_unpacked(again, NULL);
	}
	json_decref(j);
	return 0;
}
