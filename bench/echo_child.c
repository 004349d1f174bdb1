/*
 * bench/echo_child.py for when there are a thousand of them: the same answers out of a
 * process of a few hundred KiB that starts in a millisecond. One tool more: "flood"
 * ("bytes"), which sends so many bytes of log messages before its answer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char TOOLS[] =
    "{\"tools\":[{\"name\":\"echo\",\"description\":\"Says it again.\",\"inputSchema\":"
    "{\"type\":\"object\",\"properties\":{\"text\":{\"type\":\"string\"}},\"required\":"
    "[\"text\"]}},{\"name\":\"payload\",\"description\":\"Says much.\",\"inputSchema\":"
    "{\"type\":\"object\",\"properties\":{\"bytes\":{\"type\":\"integer\"}},\"required\":"
    "[\"bytes\"]}},{\"name\":\"flood\",\"description\":\"Logs much.\",\"inputSchema\":"
    "{\"type\":\"object\",\"properties\":{\"bytes\":{\"type\":\"integer\"}},\"required\":"
    "[\"bytes\"]}}]}";

static char *out;
static size_t out_size, out_room;

static void flush_out(void) {
    size_t done = 0;
    while (done < out_size) {
        ssize_t n = write(1, out + done, out_size - done);
        if (n <= 0) exit(0);
        done += (size_t)n;
    }
    out_size = 0;
    if (out_room > (1u << 20)) {
        free(out);
        out = NULL;
        out_room = 0;
    }
}

static void *grown(void *data, size_t size) {
    void *larger = realloc(data, size);
    if (larger == NULL) exit(1);
    return larger;
}

static char *room(size_t size) {
    if (out_size + size > out_room) {
        out_room = (out_size + size) * 2;
        out = grown(out, out_room);
    }
    out_size += size;
    return out + out_size - size;
}

static void say_n(const char *text, size_t size) { memcpy(room(size), text, size); }
static void say(const char *text) { say_n(text, strlen(text)); }

/* The raw value after the first "name": of a line that ends with a zero byte. */
static const char *value_of(const char *line, const char *name, size_t *size) {
    char key[32];
    const char *found = line, *end;
    size_t length = (size_t)snprintf(key, sizeof key, "\"%s\"", name);
    while ((found = strstr(found, key)) != NULL) {
        found += length;
        while (*found == ' ') found++;
        if (*found == ':') break; /* else it was a value, not a name */
    }
    if (found == NULL) return NULL;
    do found++;
    while (*found == ' ');
    end = found;
    if (*end == '"') {
        for (end++; *end != 0 && *end != '"'; end++)
            if (*end == '\\' && end[1] != 0) end++;
        if (*end == '"') end++;
    } else {
        while (*end != 0 && strchr(",}] \r", *end) == NULL) end++;
    }
    *size = (size_t)(end - found);
    return found;
}

static int is(const char *value, size_t size, const char *text) {
    return value != NULL && size == strlen(text) && memcmp(value, text, size) == 0;
}

static void begin(const char *id, size_t id_size) {
    say("{\"jsonrpc\":\"2.0\",\"id\":");
    say_n(id, id_size);
    say(",\"result\":");
}

static void text_of(const char *text, size_t size) {
    say("{\"content\":[{\"type\":\"text\",\"text\":");
    say_n(text, size);
    say("}]}}\n");
}

static void flood(long bytes) {
    enum { PIECE = 32768 };
    for (; bytes > 0; bytes -= PIECE) {
        say("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":"
            "{\"level\":\"error\",\"data\":\"");
        memset(room(PIECE), 'x', PIECE);
        say("\"}}\n");
        flush_out();
    }
}

static void answer(const char *line) {
    size_t id_size = 0, method_size = 0, size = 0;
    const char *id = value_of(line, "id", &id_size);
    const char *method = value_of(line, "method", &method_size), *value;
    if (id == NULL || method == NULL) return;
    if (is(method, method_size, "\"tools/call\"")) {
        value = value_of(line, "name", &size);
        if (is(value, size, "\"echo\"")) {
            value = value_of(line, "text", &size);
            begin(id, id_size);
            text_of(value == NULL ? "\"\"" : value, value == NULL ? 2 : size);
            return;
        }
        if (is(value, size, "\"payload\"") || is(value, size, "\"flood\"")) {
            int is_flood = is(value, size, "\"flood\"");
            value = value_of(line, "bytes", &size);
            long bytes = value == NULL ? 0 : atol(value);
            if (bytes < 0) bytes = 0;
            if (is_flood) {
                flood(bytes);
                bytes = 2;
            }
            begin(id, id_size);
            say("{\"content\":[{\"type\":\"text\",\"text\":\"");
            memset(room((size_t)bytes), 'x', (size_t)bytes);
            say("\"}]}}\n");
            return;
        }
    } else if (is(method, method_size, "\"initialize\"")) {
        value = value_of(line, "protocolVersion", &size);
        begin(id, id_size);
        say("{\"protocolVersion\":");
        say_n(value == NULL ? "\"2025-11-25\"" : value, value == NULL ? 12 : size);
        say(",\"capabilities\":{\"tools\":{},\"logging\":{}},\"serverInfo\":"
            "{\"name\":\"echo\",\"version\":\"1\"}}}\n");
        return;
    } else if (is(method, method_size, "\"ping\"") ||
               is(method, method_size, "\"logging/setLevel\"")) {
        begin(id, id_size);
        say("{}}\n");
        return;
    } else if (is(method, method_size, "\"tools/list\"")) {
        begin(id, id_size);
        say(TOOLS);
        say("}\n");
        return;
    }
    say("{\"jsonrpc\":\"2.0\",\"id\":");
    say_n(id, id_size);
    say(",\"error\":{\"code\":-32601,\"message\":\"no such method\"}}\n");
}

int main(void) {
    char *line = NULL;
    size_t length = 0, capacity = 0;
    for (;;) {
        if (capacity - length < 16384) line = grown(line, capacity += 65536);
        ssize_t n = read(0, line + length, capacity - length - 1);
        if (n <= 0) return 0;
        size_t searched = length, start = 0;
        length += (size_t)n;
        for (char *end; (end = memchr(line + searched, '\n', length - searched));) {
            *end = 0;
            answer(line + start);
            start = searched = (size_t)(end - line) + 1;
        }
        memmove(line, line + start, length - start);
        length -= start;
        flush_out();
    }
}
