/* The words that docker shows for a container's state and age. Pure. */
#include <stdio.h>

#include "base/rng.h"
#include "base/str.h"
#include "node/api/containers.h"

void container_duration_words(int64_t ns, char *out, size_t cap)
{
	int64_t s = ns < 0 ? 0 : ns / NS_PER_SEC, m = s / 60;
	/* Hours are rounded; all coarser units count whole hours. */
	int64_t h = (s + 1800) / 3600;
	if (s < 1)
		snprintf(out, cap, "Less than a second");
	else if (s == 1)
		snprintf(out, cap, "1 second");
	else if (s < 60)
		snprintf(out, cap, "%d seconds", (int)s);
	else if (m == 1)
		snprintf(out, cap, "About a minute");
	else if (m < 60)
		snprintf(out, cap, "%d minutes", (int)m);
	else if (h == 1)
		snprintf(out, cap, "About an hour");
	else if (h < 48)
		snprintf(out, cap, "%d hours", (int)h);
	else if (h < 24 * 7 * 2)
		snprintf(out, cap, "%d days", (int)(h / 24));
	else if (h < 24 * 30 * 2)
		snprintf(out, cap, "%d weeks", (int)(h / 24 / 7));
	else if (h < 24 * 365 * 2)
		snprintf(out, cap, "%d months", (int)(h / 24 / 30));
	else
		snprintf(out, cap, "%d years", (int)(s / 3600 / 24 / 365));
}

const char *container_state_word(const Pb__Container *c)
{
	switch (c->status) {
	case PB__CONTAINER_STATUS_KIND__E__CREATED:
		return "created";
	case PB__CONTAINER_STATUS_KIND__E__RUNNING:
		return "running";
	case PB__CONTAINER_STATUS_KIND__E__EXITED:
		return "exited";
	case PB__CONTAINER_STATUS_KIND__E__REMOVING:
		return "removing";
	case PB__CONTAINER_STATUS_KIND__E__PAUSED:
		return "paused";
	default:
		return "dead";
	}
}

bool container_is_running(const Pb__Container *c)
{
	return c->status == PB__CONTAINER_STATUS_KIND__E__RUNNING ||
	       c->status == PB__CONTAINER_STATUS_KIND__E__PAUSED;
}

const char *container_network_mode(const Pb__Container *c)
{
	return str_or(c->config->network_mode, "bridge");
}

static const char *health_suffix(const Pb__Container *c)
{
	if (c->status == PB__CONTAINER_STATUS_KIND__E__PAUSED)
		return " (Paused)";
	if (str_eq(c->health, "starting"))
		return " (health: starting)";
	if (str_eq(c->health, "healthy"))
		return " (healthy)";
	return str_eq(c->health, "unhealthy") ? " (unhealthy)" : "";
}

void container_status_words(const Pb__Container *c, int64_t now_ns, char *out, size_t cap)
{
	char age[40], code[24] = "unknown";
	switch (c->status) {
	case PB__CONTAINER_STATUS_KIND__E__CREATED:
		snprintf(out, cap, "Created");
		return;
	case PB__CONTAINER_STATUS_KIND__E__RUNNING:
	case PB__CONTAINER_STATUS_KIND__E__PAUSED:
		container_duration_words(now_ns - c->started_at, age, sizeof(age));
		snprintf(out, cap, "Up %s%s", age, health_suffix(c));
		return;
	case PB__CONTAINER_STATUS_KIND__E__EXITED:
		container_duration_words(now_ns - c->finished_at, age, sizeof(age));
		if (c->has_exit_code)
			snprintf(code, sizeof(code), "%lld", (long long)c->exit_code);
		snprintf(out, cap, "Exited (%s) %s ago", code, age);
		return;
	case PB__CONTAINER_STATUS_KIND__E__REMOVING:
		snprintf(out, cap, "Removal In Progress");
		return;
	default:
		snprintf(out, cap, "Dead");
		return;
	}
}
