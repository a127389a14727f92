/* Loaded before the C library (LD_PRELOAD), this keeps for each file below POWERLOSS_DATA what was in it before each
   write that no fsync followed yet, in POWERLOSS_JOURNALS, so that powerloss.py can take those writes back. A record is
   the offset of a write, the size of the file before, and the bytes that it replaced, with their number in front. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static void journal_of(ino_t inode, char *path) {
    snprintf(path, PATH_MAX, "%s/%ju", getenv("POWERLOSS_JOURNALS"), (uintmax_t)inode);
}

/* The locked journal of an open file, -1 if it is none of those that are meant. */
static int lock(int file, struct stat *found) {
    char link[64], name[PATH_MAX], path[PATH_MAX];
    const char *data = getenv("POWERLOSS_DATA");
    if (!data || fstat(file, found) || !S_ISREG(found->st_mode))
        return -1;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, name, sizeof name - 1);
    if (length < 0)
        return -1;
    name[length] = 0;
    if (strncmp(name, data, strlen(data)))
        return -1;
    journal_of(found->st_ino, path);
    int journal = open(path, O_CREAT | O_RDWR | O_APPEND | O_CLOEXEC, 0600);
    if (journal < 0 || flock(journal, LOCK_EX) || fstat(file, found))
        abort();
    return journal;
}

static int keep(int file, off_t offset, size_t length) {
    struct stat found;
    int journal = lock(file, &found);
    if (journal < 0)
        return -1;
    size_t old = offset >= found.st_size ? 0 : found.st_size - offset < (off_t)length ? found.st_size - offset : length;
    int64_t head[3] = {offset, found.st_size, old};
    char *record = malloc(sizeof head + old), path[64];
    memcpy(record, head, sizeof head);
    if (old) {
        /* The file may be open for writing only. */
        snprintf(path, sizeof path, "/proc/self/fd/%d", file);
        int reading = open(path, O_RDONLY | O_CLOEXEC);
        if (reading < 0 || pread(reading, record + sizeof head, old, offset) != (ssize_t)old)
            abort();
        close(reading);
    }
    if (REAL(write)(journal, record, sizeof head + old) != (ssize_t)(sizeof head + old))
        abort();
    free(record);
    return journal;
}

#define DO(journal, call)       \
    int locked = journal;       \
    __typeof__(call) done = call; \
    if (locked >= 0)            \
        close(locked);          \
    return done;

static size_t total(const struct iovec *parts, int number) {
    size_t sum = 0;
    for (int i = 0; i < number; i++)
        sum += parts[i].iov_len;
    return sum;
}

static off_t place(int file) {
    return fcntl(file, F_GETFL) & O_APPEND ? lseek(file, 0, SEEK_END) : lseek(file, 0, SEEK_CUR);
}

ssize_t write(int file, const void *bytes, size_t length) { DO(keep(file, place(file), length), REAL(write)(file, bytes, length)) }
ssize_t pwrite(int file, const void *bytes, size_t length, off_t offset) { DO(keep(file, offset, length), REAL(pwrite)(file, bytes, length, offset)) }
ssize_t pwrite64(int file, const void *bytes, size_t length, off_t offset) { DO(keep(file, offset, length), REAL(pwrite64)(file, bytes, length, offset)) }
ssize_t writev(int file, const struct iovec *parts, int number) { DO(keep(file, place(file), total(parts, number)), REAL(writev)(file, parts, number)) }
ssize_t pwritev(int file, const struct iovec *parts, int number, off_t offset) { DO(keep(file, offset, total(parts, number)), REAL(pwritev)(file, parts, number, offset)) }
ssize_t pwritev64(int file, const struct iovec *parts, int number, off_t offset) { DO(keep(file, offset, total(parts, number)), REAL(pwritev64)(file, parts, number, offset)) }
int ftruncate(int file, off_t length) { DO(keep(file, length, SIZE_MAX / 2), REAL(ftruncate)(file, length)) }
int ftruncate64(int file, off_t length) { DO(keep(file, length, SIZE_MAX / 2), REAL(ftruncate64)(file, length)) }
int posix_fallocate(int file, off_t offset, off_t length) { DO(keep(file, offset, 0), REAL(posix_fallocate)(file, offset, length)) }
int posix_fallocate64(int file, off_t offset, off_t length) { DO(keep(file, offset, 0), REAL(posix_fallocate64)(file, offset, length)) }

#define SYNC(name)                                   \
    int name(int file) {                             \
        struct stat found;                           \
        int journal = lock(file, &found);            \
        int done = REAL(name)(file);                 \
        if (journal >= 0) {                          \
            if (!done && REAL(ftruncate)(journal, 0)) \
                abort();                             \
            close(journal);                          \
        }                                            \
        return done;                                 \
    }
SYNC(fsync)
SYNC(fdatasync)

/* Its number may be given to another file. */
static void forget(const char *name) {
    struct stat found;
    char path[PATH_MAX];
    if (getenv("POWERLOSS_JOURNALS") && !stat(name, &found) && found.st_nlink == 1) {
        journal_of(found.st_ino, path);
        REAL(unlink)(path);
    }
}

int unlink(const char *name) { forget(name); return REAL(unlink)(name); }
int rename(const char *from, const char *to) { forget(to); return REAL(rename)(from, to); }
