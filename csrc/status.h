/* What every function of the library returns when it can fail. */
#ifndef LILLIPUT_STATUS_H
#define LILLIPUT_STATUS_H

typedef enum {
    LP_OK = 0,
    LP_BAD_BITS = 1,  /* a width that the function does not know */
    LP_BAD_CODE = 2,  /* a code does not fit in its width, or a bit is set where the layout wants zero */
    LP_TOO_SHORT = 3, /* a buffer holds less than the count needs */
    LP_NULL = 4,      /* a pointer is NULL although its length is not zero */
    LP_BAD_SHAPE = 5, /* sizes that contradict each other, or whose product leaves the range of the type */
    LP_BAD_PATH = 6,  /* an instruction set that this processor or this build does not have */
    LP_CORRUPT = 7    /* a coded stream or its table contradicts itself */
} lp_status;

#endif
