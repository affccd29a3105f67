"""The gateway: between an authenticated connection and a plain one."""
