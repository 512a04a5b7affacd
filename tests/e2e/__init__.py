"""Does it hold in real processes, on real sockets and disks, when they are killed?"""
