"""
Writing at once. Twisted keeps what is written until the event loop has found that the
system takes it: up to four calls of C{epoll_ctl} and a turn of the loop, for bytes that
nearly always fit.
"""

from twisted.internet.abstract import FileDescriptor


def write_now(descriptor: object, data: bytes) -> bytes:
    """
    @param descriptor: a transport of any kind.
    @param data: to be written behind all that was given to it before.
    @return: what is left for its C{write}: all of it unless it is a plain socket or
        pipe that has nothing waiting.
    """
    if (
        not isinstance(descriptor, FileDescriptor)
        or not descriptor.connected
        or descriptor.disconnecting
        or descriptor.dataBuffer
        or descriptor._tempDataLen
    ):
        return data
    written = descriptor.writeSomeData(data)
    # An error is left to be found, and told, by the event loop's own attempt.
    return data[written:] if isinstance(written, int) else data
