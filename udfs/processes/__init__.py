"""Work in a process that may die or hang, and what is done about the rows that it worked on.

activity.py         what rows a process works on, in memory that outlives it
watched_process.py  a forked process with limits on time and memory
row_supervisor.py   runs rows through such a process, and finds those that end it
row_queue.py        the rows of a stream: which wait, which are with the child, which have an answer
memory_size.py      the memory of the machine, and of a process
"""
