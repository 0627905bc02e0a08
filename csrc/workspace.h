/* Memory that a function may use while it runs; its contents mean nothing before and after. */
#ifndef LILLIPUT_WORKSPACE_H
#define LILLIPUT_WORKSPACE_H

#include <stddef.h>

typedef struct {
    void *bytes; /* of any alignment */
    size_t size;
} lp_workspace;

#endif
