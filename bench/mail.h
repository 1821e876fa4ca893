/* The messages of the benchmark: what backend.c sends and load.c expects, octet for octet.
 *
 * A message is known by its size alone, so that neither program needs a mailbox, and every octet that comes out
 * of a proxy can be compared with what went in. Sizes are octets on the wire, without the line that ends the answer. */
#ifndef MAIL_H
#define MAIL_H

#include <stdlib.h>
#include <string.h>

#define MAIL_END ".\r\n"
#define MAIL_LARGEST (64u << 20)

enum { MAIL_LINE = 78, MAIL_DOTTED = 16, MAIL_SIZES = 16 }; /* octets a line; each 16th starts with a stuffed dot */

/* Lines of 76 characters and CRLF, `size` octets in all (2 or more). NULL where the size is out of range. */
static const char *mail_content(size_t size)
{
    static struct { size_t size; char *text; } known[MAIL_SIZES];
    size_t kind = 0, at = 0, number = 0;

    while (kind < MAIL_SIZES && known[kind].text && known[kind].size != size)
        kind++;
    if (kind == MAIL_SIZES || size < 2 || size > MAIL_LARGEST)
        return NULL;
    if (known[kind].text)
        return known[kind].text;
    char *text = malloc(size);
    if (!text)
        return NULL;
    while (at < size) {
        size_t line = size - at < MAIL_LINE ? size - at : MAIL_LINE;
        if (size - at - line == 1)
            line--; /* a single octet cannot be a line: leave two */
        for (size_t i = 0; i + 2 < line; i++)
            text[at + i] = (char)('a' + (i + number) % 26);
        if (number % MAIL_DOTTED == 1 && line >= 4)
            memcpy(text + at, "..", 2);
        memcpy(text + at + line - 2, "\r\n", 2);
        at += line;
        number++;
    }
    known[kind].size = size;
    known[kind].text = text;
    return text;
}

#endif
