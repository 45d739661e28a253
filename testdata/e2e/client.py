"""Drives webstatus with slixmpp: discovery, registration, chat, commands, identity, profile, administration.

usage: client.py HOST PORT JID PASSWORD COMPONENT
"""
import asyncio
import hashlib
import json
import re
import struct
import sys
import urllib.request
import zlib
from datetime import datetime, timedelta, timezone
from xml.etree import ElementTree

import slixmpp


class Client(slixmpp.ClientXMPP):
    def __init__(self, jid, password, component):
        super().__init__(jid, password)
        self.component = component
        self.failure = None
        self.answers = asyncio.Queue()
        self.available = asyncio.Queue()
        for plugin in ("xep_0004", "xep_0030", "xep_0050", "xep_0054", "xep_0012", "xep_0077", "xep_0092", "xep_0084", "xep_0115",
                       "xep_0107", "xep_0108", "xep_0118", "xep_0153", "xep_0172", "xep_0184", "xep_0199", "xep_0319"):
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
        except Exception as e:  # any exception fails the test
            self.failure = repr(e)
        self.disconnect()

    async def write(self, text):
        self.send_message(self.component, text, mtype="chat")
        return await self.answer()

    async def answer(self):
        message = await asyncio.wait_for(self.answers.get(), 60)
        assert message["type"] == "chat", message
        return message["body"]

    async def receipt(self):
        """Checks that a message that requests a receipt gets one besides the answer."""
        delivered = asyncio.ensure_future(self.wait_until("receipt_received", 60))
        message = self.make_message(self.component, "help", mtype="chat")
        message["request_receipt"] = True
        message.send()
        assert (await delivered)["receipt"] == message["id"], message
        await self.answer()

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

    async def commands(self):
        """Returns the nodes of the commands that users are offered."""
        listed = await self["xep_0050"].get_commands(self.component)
        return {node for _, node, _ in listed["disco_items"]["items"] if "#" not in node}

    async def shown(self, what, condition):
        """Waits until the JSON at the user's address meets a condition."""
        for _ in range(1200):
            status = json.loads(await asyncio.get_running_loop().run_in_executor(
                None, lambda: urllib.request.urlopen(self.url + ".json").read()))
            if condition(status):
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{what}: {status}")

    async def profile(self):
        self.url = re.search(r"http\S+", await self.write("link"))[0]
        assert "Show each connected client" in await self.write("show nick avatar lastseen resources on")
        resource = self.boundjid.resource
        await self.shown("resources", lambda s: [c["name"] for c in s.get("resources", [])] == [resource])
        presence = self.make_presence()
        presence.append(ElementTree.fromstring("<nick xmlns='http://jabber.org/protocol/nick'>Jule</nick>"))
        presence["idle"]["since"] = datetime.now(timezone.utc) - timedelta(minutes=42)
        presence.send()
        await self.shown("nick in presence", lambda s: s.get("nick") == "Jule")
        await self.shown("idle", lambda s: "idle_since" in s)
        await self["xep_0172"].publish_nick("Juliet C.")
        await self.shown("nick in PEP", lambda s: s.get("nick") == "Juliet C.")
        self.send_presence()
        await self.shown("active", lambda s: "idle_since" not in s)

        pictures = set()

        def is_new(status):
            new = status.get("avatar", "").startswith("data:image/") and status["avatar"] not in pictures
            if new:
                pictures.add(status["avatar"])
            return new

        first, second = picture(200, 0, 0), picture(0, 0, 200)
        await self["xep_0153"].set_avatar(avatar=first, mtype="image/png")
        self.send_presence()
        await self.shown("avatar in the vCard", is_new)
        # Requests above the rate limit are repeated later.
        await self["xep_0084"].publish_avatar(second)
        await self["xep_0084"].publish_avatar_metadata(
            {"id": hashlib.sha1(second).hexdigest(), "type": "image/png", "bytes": str(len(second)), "width": "64", "height": "64"})
        await self.shown("avatar in PEP", is_new)
        assert "only your state is shown" in await self.write("show nick avatar lastseen resources message jid off")
        await self.shown("nothing", lambda s: s.keys() <= {"version", "state", "label", "since"})

    async def rich_presence(self):
        """Publishes an activity, a mood and a tune, and stops again."""
        keys = {"activity", "mood", "tune"}
        await self["xep_0107"].publish_mood("in_love", "with Romeo", id="current")  # before the option is on
        assert "Show your mood" in await self.write("show activity mood tune on")
        await self.shown("mood", lambda s: s.get("mood") == "in_love" and s["mood_label"] == "In love" and s["mood_text"] == "with Romeo")
        await self["xep_0108"].publish_activity("relaxing", "reading", "sonnets")
        await self["xep_0118"].publish_tune(artist="Prokofiev", title="Dance of the Knights", source="Ballet", length=340, rating=9)
        await self.shown("activity", lambda s: (s.get("activity"), s.get("activity_specific"), s.get("activity_text")) == ("relaxing", "reading", "sonnets"))
        await self.shown("tune", lambda s: (s.get("tune_artist"), s.get("tune_title"), s.get("tune_source")) == ("Prokofiev", "Dance of the Knights", "Ballet"))
        assert "Reading – sonnets" in await self.write("status")
        await self["xep_0118"].stop()
        await self.shown("no tune", lambda s: not keys & s.keys() - {"activity", "mood"})
        server = await self["xep_0030"].get_info(self.boundjid.domain)
        if any(name == "Prosody" for _, _, _, name in server["disco_info"]["identities"]):
            await self["xep_0060"].retract(None, "http://jabber.org/protocol/mood", "current", notify=True)
        else:  # ejabberd does not tell anybody of a retraction
            await self["xep_0107"].stop()
        await self["xep_0108"].stop()
        await self.shown("nothing", lambda s: not keys & s.keys())

        await self["xep_0107"].publish_mood("happy")
        await self.shown("happy", lambda s: s.get("mood") == "happy")
        await self.write("show mood off")
        await self.shown("switched off", lambda s: not keys & s.keys())
        await self.write("show mood on")
        await self.shown("switched on", lambda s: s.get("mood") == "happy")
        self.send_presence(ptype="unavailable")
        await self.shown("offline", lambda s: s["state"] == "unavailable" and not keys & s.keys())
        self.send_presence()
        await self.shown("online", lambda s: s.get("mood") == "happy")
        await self["xep_0107"].stop()
        await self.shown("no mood", lambda s: not keys & s.keys())
        await self.write("show activity mood tune off")

    async def administration(self):
        admin = "http://jabber.org/protocol/admin#"
        me = self.boundjid.bare
        number = await self.command(admin + "get-registered-users-num")
        assert number["command"]["form"]["values"]["registeredusersnum"] == "1", number
        online = await self.command(admin + "get-online-users-num")
        assert online["command"]["form"]["values"]["onlineusersnum"] == "1", online
        for node, field in (("get-registered-users-list", "registereduserjids"), ("get-online-users-list", "onlineuserjids")):
            answer = await self.command(admin + node)
            assert me in answer["command"]["form"]["values"][field], answer
        await self.command(admin + "delete-user", accountjids=[me])
        for _ in range(600):  # unregistering takes a moment
            if "not registered" in await self.write("status"):
                break
            await asyncio.sleep(0.1)
        else:
            raise AssertionError("still registered")
        assert "/status/" in await self.write("register")

    async def scenario(self):
        to = self.component
        info = await self["xep_0030"].get_info(to)
        assert ("component", "presence", None, "web presence") in info["disco_info"]["identities"], info
        features = info["disco_info"]["features"]
        for feature in ("jabber:iq:register", "http://jabber.org/protocol/commands", "vcard-temp", "urn:xmpp:ping"):
            assert feature in features, feature

        forms = {f["values"]["FORM_TYPE"][0]: f["values"] for f in info["disco_info"]["substanzas"] if f.name == "x"}
        contacts = forms["http://jabber.org/network/serverinfo"]
        assert contacts["admin-addresses"] == ["mailto:admin@example.org"], contacts
        assert contacts["abuse-addresses"] == ["mailto:abuse@example.org", "https://example.org/?abuse=1"], contacts
        assert contacts["security-addresses"] == ["mailto:security@example.org"], contacts
        policy = forms["urn:xmpp:data-policy:0"]
        assert policy["data_deletion"] is True and policy["data_retention"] == "infinite", policy

        assert {"register"} == await self.commands(), await self.commands()
        assert "Send “register”" in await self.write("hello")
        assert "register" in await self.write("help")
        await self.receipt()
        assert "not registered" in await self.write("status")
        assert "/status/" in await self.write("register")
        presence = await asyncio.wait_for(self.available.get(), 60)
        verification = self["xep_0115"].generate_verstring(info["disco_info"], "sha-1")
        assert presence["caps"]["ver"] == verification, (presence, verification)
        assert "on" in await self.write("show message on")
        before = await self.write("link")
        assert (await self.write("newlink")) != before

        listed = await self.commands()
        assert listed == {"page", "options", "newlink", "stop"}, listed
        await self.command("options", show_full_jid=True)
        assert self.boundjid.bare in await self.write("status")
        for node in ("page", "newlink"):
            result = await self.command(node)
            urls = result["command"]["form"]["values"]
            assert all(re.fullmatch(r"http\S+/status/\S+", urls[field]) for field in ("url", "jid_url")), result

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

        await self.profile()
        await self.rich_presence()
        await self.administration()
        await self.command("stop")
        assert "not registered" in await self.write("status")

        result = await self.command("register", show_status_msg=True)
        self.url = result["command"]["form"]["values"]["url"]
        # ejabberd sends what was last said when the request was accepted, even after a newer presence.
        await self.shown("accepted", lambda s: s["state"] == "available")
        self.send_presence(pstatus="registered by command")
        await self.shown("message", lambda s: s.get("message") == "registered by command")
        await self.command("stop")
        assert "not registered" in await self.write("status")


def picture(*color):
    """Returns a PNG of one color."""
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    rows = (b"\0" + bytes(color) * 64) * 64
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


if __name__ == "__main__":
    host, port, jid, password, component = sys.argv[1:]
    client = Client(jid, password, component)
    client.connect((host, int(port)), use_ssl=False, force_starttls=False, disable_starttls=True)
    client.process(forever=False)
    if client.failure:
        sys.exit(client.failure)
    print("done")
