"""A client that does what it reads, and prints what it is sent by the component that matters to a person.

usage: privilege.py HOST PORT JID PASSWORD COMPONENT
input: "register", or a value of <show/>, or "quit"
"""
import asyncio
import sys

import slixmpp


class Client(slixmpp.ClientXMPP):
    def __init__(self, jid, password, component):
        super().__init__(jid, password)
        self.component = component
        self["feature_mechanisms"].unencrypted_plain = True
        self.auto_authorize = None  # a person decides
        self.auto_subscribe = False
        self.add_event_handler("session_start", self.start)
        self.add_event_handler("message", lambda m: print("message", m["body"], flush=True))
        self.add_event_handler("presence_subscribe", lambda p: print("contact request from", p["from"], flush=True))

    async def start(self, _):
        await self.get_roster()
        self.send_presence(pshow="dnd")
        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while line := (await lines.readline()).decode().strip():
            if line == "quit":
                break
            if line == "register":
                self.send_message(self.component, line, mtype="chat")
            else:
                self.send_presence(pshow=line)
        self.disconnect()


host, port, jid, password, component = sys.argv[1:]
client = Client(jid, password, component)
client.connect((host, int(port)), use_ssl=False, force_starttls=False, disable_starttls=True)
client.process(forever=False)
