package main

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"unicode/utf8"
)

// options changes Juliet's options.
func (f *fixture) options(fields string) {
	f.t.Helper()
	f.send(`<iq type='set' id='r' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'>` + fields + `</query></iq>`)
	f.want(`<iq type='result' id='r' from='webstatus.example.org' to='juliet@example.org/b'></iq>`)
}

// answers sends the response of Juliet's server to the last request of a question, a result or an error.
func (f *fixture) answers(typ, question, payload string) {
	f.t.Helper()
	f.send(`<iq type='` + typ + `' id='` + f.asked[question] + `' from='juliet@example.org' to='webstatus.example.org'>` + payload + `</iq>`)
}

// mayAnswer has the component ask a question that it would not ask now.
func (f *fixture) mayAnswer(q question) {
	f.asked[q.String()] = f.comp.contacts.pep.ids.next(juliet, q, f.now())
}

// publishes sends a PEP notification from Juliet's account, to the full JID of our presence as servers do.
func (f *fixture) publishes(node, item string) {
	f.t.Helper()
	f.send(`<message type='headline' from='juliet@example.org' to='webstatus.example.org/web'><event xmlns='http://jabber.org/protocol/pubsub#event'>` +
		`<items node='` + node + `'>` + item + `</items></event></message>`)
}

// status requests the JSON of Juliet's status.
func (f *fixture) status() (s statusJSON) {
	f.t.Helper()
	_, body := f.get(julietPage + ".json")
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		f.t.Fatalf("%v: %s", err, body)
	}
	return s
}

// wanted returns a request to Juliet's account.
func wanted(id, payload string) string {
	return `<iq type='get' id='` + id + `' from='webstatus.example.org' to='juliet@example.org'>` + payload + `</iq>`
}

var (
	wantNick     = wanted("nick", `<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='http://jabber.org/protocol/nick' max_items='1'></items></pubsub>`)
	wantMetadata = wanted("avatar", `<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:xmpp:avatar:metadata' max_items='1'></items></pubsub>`)
	wantVCard    = wanted("vcard", `<vCard xmlns='vcard-temp'></vCard>`)
	wantLast     = wanted("last", `<query xmlns='jabber:iq:last'></query>`)
)

func wantData(id string) string {
	return wanted("avatar-data", `<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:xmpp:avatar:data'><item id='`+id+`'></item></items></pubsub>`)
}

const nick = `<nick xmlns='http://jabber.org/protocol/nick'>`

func TestNick(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", nick+`Jule</nick>`)
	if got := f.status().Nick; got != "" {
		t.Errorf("%q is shown without the option", got)
	}
	f.options("<show_nick>1</show_nick>")
	f.want(wantNick)
	f.answers("result", "nick", `<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='http://jabber.org/protocol/nick'><item id='current'>`+nick+`Giulietta</nick></item></items></pubsub>`)
	f.settled(juliet)
	for _, step := range []struct {
		does func()
		want string
	}{
		{func() {}, "Giulietta"},
		{func() { f.says("b", "", nick+`Jule</nick>`) }, "Jule"},
		{func() { f.says("b", "", ``) }, "Jule"},
		{func() { f.publishes(nsNick, `<item id='x'>`+nick+" J.\n\tC. "+`</nick></item>`) }, "J. C."},
		{func() { f.publishes(nsNick, `<item id='x'>`+nick+strings.Repeat("é", 99)+`</nick></item>`) }, strings.Repeat("é", 30) + "…"},
		{func() { f.mayAnswer(askNick); f.answers("error", "nick", items(nsNick, "")+`<error type='cancel'/>`) }, strings.Repeat("é", 30) + "…"},
		{func() { f.publishes("other", `<item id='x'>`+nick+`x</nick></item>`) }, strings.Repeat("é", 30) + "…"},
		{func() { f.publishes(nsNick, `<retract id='x'/>`) }, ""},
		{func() { f.publishes(nsNick, `<item id='x'>`+nick+`Jule</nick></item>`) }, "Jule"},
	} {
		step.does()
		f.settled(juliet)
		if got := f.status().Nick; got != step.want {
			t.Errorf("%q, want %q", got, step.want)
		}
	}
	// Responses from another of her clients or from another user are ignored.
	f.mayAnswer(askNick)
	f.send(`<iq type='result' id='` + f.asked["nick"] + `' from='juliet@example.org/b' to='webstatus.example.org'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='http://jabber.org/protocol/nick'/></pubsub></iq>`)
	f.send(`<iq type='result' id='` + f.asked["nick"] + `' from='romeo@example.org' to='webstatus.example.org'/>`)
	f.settled(juliet)
	if got := f.status().Nick; got != "Jule" {
		t.Errorf("%q after responses from others", got)
	}
	f.stop()
	f.start()
	if got := f.status().Nick; got != "Jule" {
		t.Errorf("%q after a restart", got)
	}
	f.want(`<presence type='probe' from='webstatus.example.org' to='juliet@example.org'></presence>`)
	f.says2("b")
	f.want(wantNick) // it may have changed in the meantime
	f.options("<show_nick>0</show_nick>")
	f.settled(juliet)
	f.stop()
	f.start()
	f.want(`<presence type='probe' from='webstatus.example.org' to='juliet@example.org'></presence>`)
	var n int
	if err := f.db.sql.QueryRow("SELECT count(*) FROM profiles").Scan(&n); err != nil || n != 0 {
		t.Errorf("%d profiles are kept (%v)", n, err)
	}
}

// says2 sends a presence stanza without waiting, because the component sends a request in return.
func (f *fixture) says2(resource string) {
	f.t.Helper()
	f.send(`<presence from='juliet@example.org/` + resource + `' to='webstatus.example.org'/>`)
}

// plain returns an image of one color.
func plain(width, height int, c color.Color) image.Image {
	img := image.NewNRGBA(image.Rect(0, 0, width, height))
	for i := range img.Pix {
		img.Pix[i] = 0xff
	}
	for y := range height {
		for x := range width {
			img.Set(x, y, c)
		}
	}
	return img
}

func encoded(t testing.TB, encode func(*bytes.Buffer) error) (data []byte, id, text string) {
	t.Helper()
	var b bytes.Buffer
	if err := encode(&b); err != nil {
		t.Fatal(err)
	}
	sum := sha1.Sum(b.Bytes())
	return b.Bytes(), hex.EncodeToString(sum[:]), base64.StdEncoding.EncodeToString(b.Bytes())
}

// color returns the color at the center of the shown avatar, and its size.
func (f *fixture) color() (string, image.Point) {
	f.t.Helper()
	uri := f.status().Avatar
	if uri == "" {
		return "", image.Point{}
	}
	_, text, ok := strings.Cut(uri, ";base64,")
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil || !ok || !strings.HasPrefix(uri, "data:image/") {
		f.t.Fatalf("%v: %s", err, uri)
	}
	img, _, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		f.t.Fatal(err)
	}
	r, g, b, a := img.At(img.Bounds().Dx()/2, img.Bounds().Dy()/2).RGBA()
	for name, c := range map[string]color.NRGBA{"red": red, "blue": blue, "clear": {}} {
		near := func(got uint32, want uint8) bool { return got>>8 < uint32(want)+12 && uint32(want) < got>>8+12 }
		if near(r, c.R) && near(g, c.G) && near(b, c.B) && near(a, c.A) {
			return name, img.Bounds().Size()
		}
	}
	return "another", img.Bounds().Size()
}

var red, blue = color.NRGBA{0xff, 0, 0, 0xff}, color.NRGBA{0, 0, 0xff, 0xff}

// wantColor waits until the shown avatar has a color, because images are decoded in the background.
func (f *fixture) wantColor(want string) {
	f.t.Helper()
	f.settled(juliet)
	eventually(f.t, "the avatar is "+want, func() bool {
		got, size := f.color()
		return got == want && (got == "" || size == image.Pt(avatarSize, avatarSize))
	})
}

func metadata(id string, size string) string {
	return `<item id='` + id + `'><metadata xmlns='urn:xmpp:avatar:metadata'><info id='` + id + `' bytes='` + size + `' type='image/png'/></metadata></item>`
}

func items(node, item string) string {
	return `<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='` + node + `'>` + item + `</items></pubsub>`
}

func data(id, text string) string {
	return items(nsAvatarData, `<item id='`+id+`'><data xmlns='urn:xmpp:avatar:data'>`+text+`</data></item>`)
}

// TestAvatarPEP publishes avatars in PEP (XEP-0084).
func TestAvatarPEP(t *testing.T) {
	_, redID, redText := encoded(t, func(b *bytes.Buffer) error { return png.Encode(b, plain(200, 100, red)) })
	_, blueID, blueText := encoded(t, func(b *bytes.Buffer) error { return jpeg.Encode(b, plain(40, 300, blue), nil) })
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	f.publishes(nsAvatarMetadata, metadata(redID, "100"))
	f.settled(juliet) // no request without the option
	f.options("<show_avatar>1</show_avatar>")
	f.want(wantMetadata)
	f.answers("result", "avatar", items(nsAvatarMetadata, metadata(redID, "100")))
	f.want(wantData(redID))
	f.answers("result", "avatar-data", data(redID, redText[:20]+"\n "+redText[20:]))
	f.wantColor("red")
	f.publishes(nsAvatarMetadata, metadata(redID, "100"))
	f.settled(juliet) // already stored

	f.advance(time.Minute)
	f.publishes(nsAvatarMetadata, metadata(blueID, "100"))
	f.want(wantMetadata)
	f.answers("result", "avatar", items(nsAvatarMetadata, metadata(blueID, "100")))
	f.want(wantData(blueID))
	f.answers("result", "avatar-data", data(blueID, blueText))
	f.wantColor("blue")
	f.says("b", "", `<x xmlns='vcard-temp:x:update'><photo/></x>`) // a client that supports only vCard avatars

	f.stop()
	f.start()
	f.want(`<presence type='probe' from='webstatus.example.org' to='juliet@example.org'></presence>`)
	f.wantColor("blue")

	f.advance(time.Minute)
	f.says2("b")
	f.want(wantMetadata)
	f.answers("result", "avatar", items(nsAvatarMetadata, metadata(redID, "100")))
	f.want(wantData(redID))
	f.answers("result", "avatar-data", data(redID, blueText)) // does not match its id
	f.wantColor("")

	f.advance(time.Minute)
	f.publishes(nsAvatarMetadata, `<item id='x'><metadata xmlns='urn:xmpp:avatar:metadata'/></item>`)
	f.settled(juliet)                                          // no avatar
	f.publishes(nsAvatarMetadata, metadata(redID, "99999999")) // too large
	f.settled(juliet)
	f.publishes(nsAvatarMetadata, `<item id='`+redID+`'><metadata xmlns='urn:xmpp:avatar:metadata'><info id='`+redID+`' bytes='9' url='http://elsewhere.example/'/></metadata></item>`)
	f.settled(juliet)
}

// TestUnaskedAnswers checks that an answer counts once, and only if it answers a question to that person.
func TestUnaskedAnswers(t *testing.T) {
	_, redID, redText := encoded(t, func(b *bytes.Buffer) error { return png.Encode(b, plain(90, 90, red)) })
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	f.options("<show_avatar>1</show_avatar>")
	f.want(wantMetadata)
	ids := f.comp.contacts.pep.ids
	valid := ids.next(juliet, askData, f.now())
	name, rest, _ := strings.Cut(valid, ".")
	for _, id := range []string{"avatar-data", "vcard", name, "last." + rest, valid + "A", valid[:len(valid)-1], "", ".", "nick..",
		ids.next("romeo@example.org", askData, f.now()), ids.next(juliet, askVCard, f.now().Add(-2*answerTime)),
		newQuestionIDs(f.conf.domain, "another secret", f.now()).next(juliet, askData, f.now())} {
		f.asked["x"] = id
		f.answers("result", "x", data(redID, redText))
	}
	f.settled(juliet)
	f.wantColor("")
	f.asked["x"] = valid
	f.answers("result", "x", data(redID, redText))
	f.wantColor("red")
	f.answers("error", "x", "") // again: it would remove the avatar
	f.settled(juliet)
	f.wantColor("red")
}

// TestQuestionClock checks that ids stay valid when the time of day jumps.
func TestQuestionClock(t *testing.T) {
	start := time.Now()
	ids := newQuestionIDs("webstatus.example.org", "s3cret", start)
	first := ids.next(juliet, askNick, start)
	ids.next(juliet, askNick, start.Add(time.Second))
	if q, _, ok := ids.parse(juliet, first, start.Add(time.Minute)); !ok || q != askNick {
		t.Errorf("%v %v", q, ok)
	}
	if _, _, ok := ids.parse(juliet, first, start.Add(2*answerTime)); ok {
		t.Error("a late answer is accepted")
	}
	if next := ids.next(juliet, askNick, start); next == first {
		t.Error("an id is used twice")
	}
}

// TestDecodingQuota checks that the pictures of one domain wait, and those of others do not.
func TestDecodingQuota(t *testing.T) {
	q := newDomainQuota(pixelsPerSecond, pixelsAtOnce)
	for i := range pixelsAtOnce / maxPixels {
		if !q.use(fmt.Sprintf("h%d.hostile.example", i), noon, maxPixels) {
			t.Fatalf("refused after %d pictures", i)
		}
	}
	if q.use("hostile.example", noon, maxPixels) {
		t.Error("a domain can have too many pictures decoded")
	}
	if !q.use("example.org", noon, maxPixels) {
		t.Error("another domain has to wait")
	}
	if !q.use("hostile.example", noon.Add(maxPixels/pixelsPerSecond*time.Second), maxPixels) {
		t.Error("still refused later")
	}
}

// TestAvatarVCard publishes avatars in the vCard (XEP-0153).
func TestAvatarVCard(t *testing.T) {
	_, redID, redText := encoded(t, func(b *bytes.Buffer) error { return gif.Encode(b, plain(30, 30, red), nil) })
	_, blueID, blueText := encoded(t, func(b *bytes.Buffer) error { return png.Encode(b, plain(90, 90, blue)) })
	vCard := func(text string) string {
		return `<vCard xmlns='vcard-temp'><FN>Juliet</FN><PHOTO><TYPE>image/png</TYPE><BINVAL>` + text + `</BINVAL></PHOTO></vCard>`
	}
	photo := func(id string) string { return `<x xmlns='vcard-temp:x:update'><photo>` + id + `</photo></x>` }
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", photo(redID))
	f.options("<show_avatar>1</show_avatar>")
	f.want(wantMetadata)
	f.answers("error", "avatar", `<error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>`)
	f.want(wantVCard)
	f.answers("result", "vcard", vCard(redText))
	f.wantColor("red")
	f.says("b", "", photo(redID))
	f.says("b", "", `<x xmlns='vcard-temp:x:update'/>`)
	change := func(id, text, want string) {
		t.Helper()
		f.advance(time.Minute)
		f.send(`<presence from='juliet@example.org/b' to='webstatus.example.org'>` + photo(id) + `</presence>`)
		f.want(wantMetadata)
		f.answers("result", "avatar", items(nsAvatarMetadata, ""))
		f.want(wantVCard)
		f.answers("result", "vcard", text)
		f.wantColor(want)
		f.says("b", "", photo(id)) // unchanged
	}
	change(blueID, vCard(blueText), "blue")
	change("", `<vCard xmlns='vcard-temp'/>`, "")
	change(redID, vCard(redText), "red")
	for i, text := range []string{"no base64!", base64.StdEncoding.EncodeToString([]byte("<svg xmlns='http://www.w3.org/2000/svg'/>")), blueText[:len(blueText)/2],
		base64.StdEncoding.EncodeToString(make([]byte, maxPicture+1)), bomb(t)} {
		change("bad"+string(rune('a'+i)), vCard(text), "")
	}
	_, clearID, clearText := encoded(t, func(b *bytes.Buffer) error { return png.Encode(b, image.NewNRGBA(image.Rect(0, 0, 9, 9))) })
	change(clearID, vCard(clearText), "clear")
	f.options("<show_avatar>0</show_avatar>")
	f.wantColor("")
}

// bomb returns a small file with a huge image.
func bomb(t *testing.T) string {
	_, _, text := encoded(t, func(b *bytes.Buffer) error {
		return (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(b, image.NewPaletted(image.Rect(0, 0, 3000, 3000), color.Palette{red}))
	})
	return text
}

// FuzzAvatar checks that any published data results in a small image or an error.
func FuzzAvatar(f *testing.F) {
	for _, seed := range []func(*bytes.Buffer) error{
		func(b *bytes.Buffer) error { return png.Encode(b, plain(3, 5, red)) },
		func(b *bytes.Buffer) error { return jpeg.Encode(b, plain(5, 3, red), nil) },
		func(b *bytes.Buffer) error { return gif.Encode(b, plain(1, 1, red), nil) },
	} {
		var b bytes.Buffer
		if err := seed(&b); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Add([]byte("RIFF\x00\x00\x00\x00WEBPVP8 "))
	f.Fuzz(func(t *testing.T, published []byte) {
		a, err := newAvatar(published, AvatarVCard, "")
		if err != nil {
			return
		}
		size, _, err := image.DecodeConfig(bytes.NewReader(a.Data))
		if err != nil || size.Width != avatarSize || size.Height != avatarSize || len(a.Data) > 20<<10 {
			t.Errorf("%d bytes, %v, %v", len(a.Data), size, err)
		}
	})
}

func TestLastSeen(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "<idle xmlns='urn:xmpp:idle:1' since='2026-11-22T11:42:17Z'/>")
	if s := f.status(); s.Idle != "" || s.Seen != "" {
		t.Errorf("%+v is shown without the option", s)
	}
	f.options("<show_last_seen>1</show_last_seen>")
	f.settled(juliet)
	idle := func(want string) {
		t.Helper()
		if s := f.status(); s.Idle != want || s.Seen != "" {
			t.Errorf("%+v, want idle since %s", s, want)
		}
	}
	idle("2026-11-22T11:42:00Z")
	f.advance(time.Hour)
	idle("2026-11-22T11:00:00Z")
	f.advance(23 * time.Hour)
	idle("2026-11-22T00:00:00Z")
	f.says("b", "", "")
	idle("")
	f.says("b", "", "<idle xmlns='urn:xmpp:idle:1' since='tomorrow'/>")
	idle("")

	seen := func(want, text string) {
		t.Helper()
		_, page := f.get(julietPage + "?lang=de")
		if s := f.status(); s.Seen != want || s.Idle != "" || s.Since != "" || !strings.Contains(page, ">"+text+"</time>") {
			t.Errorf("%+v, want last seen %s; no %q in the page", s, want, text)
		}
	}
	f.says("b", "type='unavailable'", "") // 12:00 on the 23rd
	seen("2026-11-23T12:00:00Z", "vor 1 Min.")
	f.advance(59*time.Minute + 59*time.Second)
	seen("2026-11-23T12:00:00Z", "vor 59 Min.")
	f.advance(2 * time.Hour)
	seen("2026-11-23T12:00:00Z", "vor 2 Std.")
	f.advance(72 * time.Hour)
	seen("2026-11-23T00:00:00Z", "vor 3 T.")

	// A restart keeps the time. If the user was online while the component was down, the server is queried.
	f.stop()
	f.start()
	seen("2026-11-23T00:00:00Z", "vor 3 T.")
	f.want(`<presence type='probe' from='webstatus.example.org' to='juliet@example.org'></presence>`, wantLast)
	f.answers("result", "last", `<query xmlns='jabber:iq:last' seconds='7200'>Good night</query>`)
	f.settled(juliet)
	seen("2026-11-26T12:00:00Z", "vor 2 Std.")
	for _, seconds := range []string{"-1", "99999999999999999999"} {
		f.mayAnswer(askLast)
		f.answers("result", "last", `<query xmlns='jabber:iq:last' seconds='`+seconds+`'/>`)
	}
	f.settled(juliet)
	seen("2026-11-26T12:00:00Z", "vor 2 Std.")
	f.says("b", "", "")
	f.mayAnswer(askLast)
	f.answers("result", "last", `<query xmlns='jabber:iq:last' seconds='60'/>`) // late
	f.settled(juliet)
	idle("")
	f.options("<show_last_seen>0</show_last_seen>")
	f.says("b", "type='unavailable'", "")
	seen("", "")
	eventually(t, "the time is not kept", func() bool {
		u, err := f.db.GetUser(t.Context(), juliet)
		return err == nil && u.Status.State == Unavailable && u.Status.Since.IsZero()
	})
}

// TestClients shows each of Juliet's clients.
func TestClients(t *testing.T) {
	f := newFixture(t, nil)
	f.register("<show_resources>1</show_resources>")
	f.says("phone", "", "<show>xa</show><status>in the bag</status>")
	f.says("balcony", "", "<priority>5</priority>")
	want := []clientJSON{{"balcony", Available, "Available", "", 5}, {"phone", ExtendedAway, "Away for a while", "", 0}}
	if diff := cmp.Diff(want, f.status().Clients); diff != "" {
		t.Error(diff)
	}
	f.options("<show_status_msg>1</show_status_msg>")
	f.replays("phone", "<show>xa</show><status>in the bag</status>")
	want[1].Message = "in the bag"
	if diff := cmp.Diff(want, f.status().Clients); diff != "" {
		t.Error(diff)
	}
	f.says("phone", "", "<show>away</show>")
	want[1] = clientJSON{"phone", Away, "Away", "", 0}
	if diff := cmp.Diff(want, f.status().Clients); diff != "" {
		t.Error(diff)
	}
	f.says("balcony", "type='unavailable'", "")
	if diff := cmp.Diff(want[1:], f.status().Clients); diff != "" {
		t.Error(diff)
	}
	f.options("<show_resources>0</show_resources>")
	f.settled(juliet)
	if got := f.status().Clients; got != nil {
		t.Errorf("%v is shown although the option is off", got)
	}
}

// TestExpiry checks that a user is removed after the server reports for long enough that the account does not exist.
func TestExpiry(t *testing.T) {
	f := newFixture(t, func(c *componentConfig) { c.expire = 30 * 24 * time.Hour })
	f.register("")
	bounce := func(condition string) {
		t.Helper()
		f.send(`<presence type='error' from='juliet@example.org' to='webstatus.example.org'><error type='cancel'><` + condition +
			` xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>`)
	}
	restart := func() {
		t.Helper()
		f.stop()
		f.start()
		f.want(`<presence type='probe' from='webstatus.example.org' to='juliet@example.org'></presence>`)
	}
	bounce("item-not-found")
	f.settled(juliet)
	f.wantState(Unknown)
	f.comp.probeTimeout(t.Context(), f.comp.board.byJID(juliet), f.comp.board.link.Load().number) // the error was the answer to the probe
	f.settled(juliet)
	f.wantState(Unknown)
	f.advance(29 * 24 * time.Hour)
	restart()
	bounce("gone")
	f.settled(juliet) // not long enough
	f.advance(2 * 24 * time.Hour)
	f.says("b", "", "") // the account exists
	bounce("gone")
	f.settled(juliet)
	f.advance(31 * 24 * time.Hour)
	restart()
	bounce("remote-server-timeout")
	f.settled(juliet) // says nothing about the account
	bounce("gone")
	f.wantLeave("webstatus.example.org")
	if resp, _ := f.get(julietPage); resp.StatusCode != 404 {
		t.Errorf("%s after the removal", resp.Status)
	}
	if said := f.log.String(); !strings.Contains(said, "account no longer exists") {
		t.Errorf("the removal is not logged: %s", said)
	}
}

// TestGoneIsAskedAgain checks that a user whose account is gone is probed again.
func TestGoneIsAskedAgain(t *testing.T) {
	f := newFixture(t, func(c *componentConfig) { c.syncTimes.goneProbe = time.Millisecond })
	f.register("")
	f.settled(juliet)
	f.send(`<presence type='error' from='juliet@example.org' to='webstatus.example.org'><error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>`)
	f.want(`<presence type='probe' from='webstatus.example.org' to='juliet@example.org'></presence>`)
}

// TestUnaskedLanguage checks that unsolicited messages are in the user's language.
func TestUnaskedLanguage(t *testing.T) {
	f := newFixture(t, nil)
	f.send(`<iq type='set' id='r' from='juliet@example.org/b' to='webstatus.example.org' xml:lang='de-AT'><query xmlns='jabber:iq:register'/></iq>`)
	f.want(`<iq type='result' id='r' from='webstatus.example.org' to='juliet@example.org/b' xml:lang='de-AT'></iq>`,
		`<presence type='subscribe' from='webstatus.example.org' to='juliet@example.org' xml:lang='de'><status>Damit deine Seite…`,
		`<message type='chat' from='webstatus.example.org' to='juliet@example.org' xml:lang='de-AT'><body>Du bist registriert.…`)
	f.send(`<presence type='subscribe' from='juliet@example.org' to='webstatus.example.org'/>`)
	f.want(`<presence type='subscribed' from='webstatus.example.org' to='juliet@example.org'></presence>`,
		`<presence from='webstatus.example.org/web' to='juliet@example.org' xml:lang='de'><status>…`)
	f.stop()
	f.start()
	f.want(`<presence from='webstatus.example.org/web' to='juliet@example.org' xml:lang='de'><status>…`)
}

// FuzzAnswer checks that what servers and rooms answer is reduced to names and ids that are short and valid.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		items(nsNick, `<item id='x'>`+nick+`Giulietta</nick></item>`), items(nsAvatarMetadata, metadata("abc", "100")), `<vCard xmlns='vcard-temp'><PHOTO><BINVAL>AA==</BINVAL></PHOTO></vCard>`,
		items(nsActivity, `<item><activity xmlns='http://jabber.org/protocol/activity'><eating><having_lunch/></eating><text>x</text></activity></item>`),
		items(nsMood, `<item><mood xmlns='http://jabber.org/protocol/mood'><happy/></mood></item>`),
		items(nsTune, `<item><tune xmlns='http://jabber.org/protocol/tune'><artist>a</artist><title>b</title></tune></item>`),
		`<query xmlns='http://jabber.org/protocol/disco#info'><identity category='conference' name='x'/><feature var='http://jabber.org/protocol/muc'/>` +
			`<x xmlns='jabber:x:data'><field var='muc#roominfo_occupants'><value>3</value></field></x></query>`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, content string) {
		s, err := decodeStanza([]byte(`<iq type='result' id='x' from='a@b' to='d'>` + content + `</iq>`))
		if err != nil {
			return
		}
		for _, node := range []string{nsNick, nsAvatarMetadata, nsAvatarData} {
			if item, ok := s.item(nsPubSub, node); ok {
				avatarID(item)
				if got := singleLine(item.childText(nsNick, "nick"), maxNick); len(got) > maxNick || !utf8.ValidString(got) || strings.ContainsAny(got, "\r\n") {
					t.Errorf("%q: nickname %q", content, got)
				}
			}
		}
		for _, n := range richNodes {
			if item, ok := s.item(nsPubSub, n.node); ok {
				var p RichPresence
				n.read(&p, item)
				for _, text := range []string{p.Activity.Text, p.Mood.Text, p.Tune.Artist, p.Tune.Title, p.Tune.Source} {
					if len(text) > maxRichText || !utf8.ValidString(text) || strings.ContainsAny(text, "\r\n") {
						t.Errorf("%q: %s %q", content, n.node, text)
					}
				}
			}
		}
		for i := range s.children {
			if r := parseRoom(s.from, &s.children[i]); r != nil && (len(r.Name) > maxRoomName || !utf8.ValidString(r.Name) || r.Occupants < -1) {
				t.Errorf("%q: room %+v", content, r)
			}
		}
	})
}
