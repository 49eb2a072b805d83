"""`tradewire-consumer ctl`: ask and drive a bot from a terminal or a script.

`commands` says what can be asked and reads its words, `command` is the command line, `tables` shows answers to people.
"""
