/* Published ports: automatic ones, keeping them, conflicts. */
#include "world.h"

#include "manager/allocator/allocator.h"

static struct world *W;
static struct allocator *A;

static void on_event(void *data, const struct store_event *ev)
{
	(void)data;
	if (A != NULL)
		allocator_event(A, ev);
}

static int make(void **state)
{
	(void)state;
	W = w_new(3);
	A = allocator_new(W->store);
	return 0;
}

static int done(void **state)
{
	(void)state;
	allocator_free(A);
	A = NULL;
	w_free(W);
	return 0;
}

/* Assigns and commits, as the reconciler does. */
static int assign(const char *id, struct err *e)
{
	Pb__Service *s = msg_clone(w_get(W, id));
	struct txn *t = txn_new();
	Pb__Endpoint *ep = NULL;
	int rc = allocator_assign(A, s, &ep, e);

	if (rc < 0) {
		protobuf_c_message_free_unpacked(&s->base, NULL);
		txn_free(t);
		return rc;
	}
	if (s->endpoint != NULL)
		protobuf_c_message_free_unpacked(&s->endpoint->base, NULL);
	s->endpoint = ep;
	txn_update(t, OBJ(SERVICE), s);
	assert_int_equal(w_apply(W, t), 0);
	assert_false(allocator_needs(w_get(W, id)));
	return 0;
}

static uint32_t port(const char *id, size_t i)
{
	return w_get(W, id)->endpoint->ports[i]->published_port;
}

static void test_auto(void **state)
{
	struct store_watch *w = store_watch_new(W->store, on_event, NULL);
	Pb__Service *s = w_service(W, "a", "ok", 1);

	(void)state;
	assert_false(allocator_needs(s));
	w_port(s, 80, 0, false);
	w_port(s, 80, 0, false);
	w_port(s, 53, 53, false);
	w_port(s, 99, 0, true);
	w_create(W, s);
	assert_true(allocator_needs(w_get(W, "a")));
	assert_int_equal(assign("a", NULL), 0);
	assert_int_equal(port("a", 0), 30000);
	assert_int_equal(port("a", 1), 30001);
	assert_int_equal(port("a", 2), 53);
	assert_int_equal(port("a", 3), 0);
	/* Another port is added: the automatic ones stay what they were. */
	s = w_edit(W, "a");
	w_port(s, 443, 443, false);
	w_port(s, 81, 0, false);
	w_save(W, s);
	assert_true(allocator_needs(w_get(W, "a")));
	assert_int_equal(assign("a", NULL), 0);
	assert_int_equal(port("a", 0), 30000);
	assert_int_equal(port("a", 1), 30001);
	assert_int_equal(port("a", 5), 30002);
	/* Nothing published any more. */
	s = w_edit(W, "a");
	protobuf_c_message_free_unpacked(&s->spec->endpoint_spec->base, NULL);
	s->spec->endpoint_spec = NULL;
	w_save(W, s);
	assert_int_equal(assign("a", NULL), 0);
	assert_null(w_get(W, "a")->endpoint);
	/* Ports that were given back are not the next to be given out. */
	s = w_service(W, "b", "ok", 1);
	w_port(s, 80, 0, false);
	w_create(W, s);
	assert_int_equal(assign("b", NULL), 0);
	assert_int_equal(port("b", 0), 30003);
	store_watch_free(w);
}

/* What was handed out is held before it is committed, and given back when it is not. */
static void test_uncommitted(void **state)
{
	struct store_watch *w = store_watch_new(W->store, on_event, NULL);
	Pb__Service *a = w_service(W, "a", "ok", 1), *b = w_service(W, "b", "ok", 1);
	Pb__Endpoint *ep = NULL;
	struct err e = ERR_INIT;

	(void)state;
	w_port(a, 80, 8080, false);
	w_port(b, 80, 8080, false);
	w_create(W, a);
	w_create(W, b);
	assert_int_equal(allocator_assign(A, w_get(W, "a"), &ep, NULL), 0);
	protobuf_c_message_free_unpacked(&ep->base, NULL);
	assert_int_equal(assign("b", &e), ERR_PRECONDITION);
	assert_string_equal(e.text, "port '8080' is already in use by service a as an ingress port");
	allocator_forget(A, "a", w_get(W, "a"));
	assert_int_equal(assign("b", &e), 0);
	assert_int_equal(assign("a", &e), ERR_PRECONDITION);
	/* A new leader sees it in the same way. */
	allocator_free(A);
	A = allocator_new(W->store);
	assert_int_equal(assign("a", &e), ERR_PRECONDITION);
	w_remove(W, OBJ(SERVICE), "b");
	assert_int_equal(assign("a", &e), 0);
	store_watch_free(w);
}

static void test_exhausted(void **state)
{
	Pb__Service *s = w_service(W, "a", "ok", 1);
	struct err e = ERR_INIT;
	uint32_t seen = 0;

	(void)state;
	for (uint32_t i = 0; i < 2768; i++)
		w_port(s, 1 + i, 0, false);
	w_create(W, s);
	assert_int_equal(assign("a", NULL), 0);
	for (size_t i = 0; i < 2768; i++)
		seen += port("a", i) >= 30000 && port("a", i) <= 32767;
	assert_int_equal(seen, 2768);
	s = w_service(W, "b", "ok", 1);
	w_port(s, 1, 0, false);
	w_create(W, s);
	assert_int_equal(assign("b", &e), ERR_PRECONDITION);
	assert_string_equal(e.text, "no free port in 30000-32767");
}

static int check(const char *id, uint32_t published, bool host, bool udp, struct err *e)
{
	Pb__Service *s = w_service(W, "x", "ok", 1);
	int rc;

	w_port(s, 80, published, host);
	s->spec->endpoint_spec->ports[0]->has_protocol = true;
	s->spec->endpoint_spec->ports[0]->protocol =
	    udp ? PB__PORT_PROTOCOL__E__UDP : PB__PORT_PROTOCOL__E__TCP;
	rc = allocator_check_ports(W->store, id, s->spec->endpoint_spec, e);
	protobuf_c_message_free_unpacked(&s->base, NULL);
	return rc;
}

static void test_check(void **state)
{
	Pb__Service *s = w_service(W, "a", "ok", 1);
	struct err e = ERR_INIT;

	(void)state;
	w_port(s, 80, 80, false);
	w_port(s, 81, 0, false);
	w_port(s, 82, 82, true);
	w_create(W, s);
	assert_int_equal(assign("a", NULL), 0);
	assert_int_equal(check(NULL, 80, false, false, &e), ERR_INVALID);
	assert_string_equal(e.text, "port '80' is already in use by service 'a' (a) as an ingress port");
	assert_int_equal(check(NULL, 80, true, false, &e), ERR_INVALID);
	assert_int_equal(check(NULL, 80, false, true, &e), 0);               /* udp */
	assert_int_equal(check("a", 80, false, false, &e), 0);               /* its own */
	assert_int_equal(check(NULL, 30000, false, false, &e), ERR_INVALID); /* an automatic one */
	assert_int_equal(check(NULL, 82, false, false, &e), ERR_INVALID);
	assert_string_equal(
	    e.text, "port '82' is already in use by service 'a' (a) as a host-published port");
	assert_int_equal(check(NULL, 82, true, false, &e), 0); /* the scheduler keeps them apart */
	assert_int_equal(check(NULL, 0, false, false, &e), 0);
	assert_int_equal(allocator_check_ports(W->store, NULL, NULL, &e), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_auto, make, done),
	    cmocka_unit_test_setup_teardown(test_uncommitted, make, done),
	    cmocka_unit_test_setup_teardown(test_exhausted, make, done),
	    cmocka_unit_test_setup_teardown(test_check, make, done),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
