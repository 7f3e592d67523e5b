/* memory/caches.h - the memory of the caches of keys and values. */
#ifndef TNN_CACHES_H
#define TNN_CACHES_H

#include "session.h"

/* Reserves the memory of all declared caches. Returns TNN_OK if there are none. */
int tnn__place_caches(tnn_session * s);

#endif
