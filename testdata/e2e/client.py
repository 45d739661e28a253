"""Drives webstatus with slixmpp: discovery, registration, chat, commands, identity.

usage: client.py HOST PORT JID PASSWORD COMPONENT
"""
import asyncio
import hashlib
import sys

import slixmpp


class Client(slixmpp.ClientXMPP):
    def __init__(self, jid, password, component):
        super().__init__(jid, password)
        self.component = component
        self.failure = None
        self.answers = asyncio.Queue()
        self.available = asyncio.Queue()
        for plugin in ("xep_0004", "xep_0030", "xep_0050", "xep_0054", "xep_0012", "xep_0077", "xep_0092", "xep_0115", "xep_0199"):
            self.register_plugin(plugin)
        self["feature_mechanisms"].unencrypted_plain = True
        self.auto_authorize = True
        self.auto_subscribe = True
        self.add_event_handler("session_start", self.start)
        self.add_event_handler("message", self.answers.put_nowait)
        self.add_event_handler("presence_available", self.saw)

    def saw(self, presence):
        if presence["from"].bare == self.component:
            self.available.put_nowait(presence)

    async def start(self, _):
        try:
            await self.get_roster()
            self.send_presence()
            await self.scenario()
        except Exception as e:  # whatever it is, the test has failed
            self.failure = repr(e)
        self.disconnect()

    async def write(self, text):
        self.send_message(self.component, text, mtype="chat")
        return await self.answer()

    async def answer(self):
        message = await asyncio.wait_for(self.answers.get(), 60)
        assert message["type"] == "chat", message
        return message["body"]

    async def command(self, node, **fields):
        commands = self["xep_0050"]
        answer = await commands.send_command(self.component, node)
        if answer["command"]["status"] == "executing":
            form = answer["command"]["form"]
            form["type"] = "submit"
            if fields:
                form["values"] = {**form["values"], **fields}
            answer = await commands.send_command(
                self.component, node, action="complete", sessionid=answer["command"]["sessionid"], payload=form)
        assert answer["command"]["status"] == "completed", answer
        return answer

    async def scenario(self):
        to = self.component
        info = await self["xep_0030"].get_info(to)
        assert ("component", "presence", None, "web presence") in info["disco_info"]["identities"], info
        features = info["disco_info"]["features"]
        for feature in ("jabber:iq:register", "http://jabber.org/protocol/commands", "vcard-temp", "urn:xmpp:ping"):
            assert feature in features, feature

        assert "register" in await self.write("help")
        assert "not registered" in await self.write("status")
        assert "/status/" in await self.write("register")
        presence = await asyncio.wait_for(self.available.get(), 60)
        verification = self["xep_0115"].generate_verstring(info["disco_info"], "sha-1")
        assert presence["caps"]["ver"] == verification, (presence, verification)
        assert "on" in await self.write("show message on")
        before = await self.write("link")
        assert (await self.write("newlink")) != before

        listed = await self["xep_0050"].get_commands(to)
        assert {item[1] for item in listed["disco_items"]["items"]} >= {"page", "options", "newlink", "stop"}, listed
        await self.command("options", show_full_jid=True)
        assert self.boundjid.bare in await self.write("status")
        page = await self.command("page")
        assert "/status/" in str(page), page

        form = await self["xep_0077"].get_registration(to)
        assert form["register"]["registered"], form
        version = await self["xep_0092"].get_version(to)
        assert version["software_version"]["name"] == "webstatus", version
        card = await self["xep_0054"].get_vcard(to, cached=False)
        photo = card["vcard_temp"]["PHOTO"]["BINVAL"]
        photos = {hashlib.sha1(photo).hexdigest()}
        assert photos & {e.text for e in presence.xml.iter("{vcard-temp:x:update}photo")}, presence
        await self["xep_0012"].get_last_activity(to)
        await self["xep_0199"].send_ping(to)

        number = await self.command("http://jabber.org/protocol/admin#get-registered-users-num")
        assert number["command"]["form"]["values"]["registeredusersnum"] == "1", number

        await self.command("stop")
        assert "not registered" in await self.write("status")


if __name__ == "__main__":
    host, port, jid, password, component = sys.argv[1:]
    client = Client(jid, password, component)
    client.connect((host, int(port)), use_ssl=False, force_starttls=False, disable_starttls=True)
    client.process(forever=False)
    if client.failure:
        sys.exit(client.failure)
    print("done")
