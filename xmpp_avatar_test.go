package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"testing"
	"time"
)

// scanBomb returns a small progressive JPEG file of 2048 × 2048 pixels in which each scan visits every block (ITU T.81, G).
func scanBomb(scans int) []byte {
	var b bytes.Buffer
	segment := func(marker byte, content ...byte) {
		b.Write([]byte{0xff, marker})
		binary.Write(&b, binary.BigEndian, uint16(len(content)+2))
		b.Write(content)
	}
	b.Write([]byte{0xff, 0xd8})
	segment(0xdb, append([]byte{0}, bytes.Repeat([]byte{1}, 64)...)...)                     // quantization
	segment(0xc2, 8, 8, 0, 8, 0, 1, 1, 0x11, 0)                                             // progressive, 2048 × 2048, gray
	segment(0xc4, append(append([]byte{0x10, 1}, bytes.Repeat([]byte{0}, 15)...), 0xe0)...) // a single code: an end-of-band run of at least 2^14 blocks
	for range scans {
		segment(0xda, 1, 1, 0, 1, 63, 0)
		b.Write([]byte{0x55, 0x54, 0xaa, 0xa9, 0x55, 0x57}) // the code three times, with 14 more bits each
	}
	b.Write([]byte{0xff, 0xd9})
	return b.Bytes()
}

// TestScanBomb publishes an image that would take minutes to decode.
func TestScanBomb(t *testing.T) {
	if _, err := newAvatar(scanBomb(2), AvatarVCard, ""); err != nil {
		t.Fatalf("with two scans: %v", err)
	}
	if _, err := newAvatar(scanBomb(500), AvatarVCard, ""); !errors.Is(err, errPicture) {
		t.Errorf("the image is accepted: %v", err)
	}
}

// TestRefusedPicture checks that an invalid image is requested once, even if it is published twice.
func TestRefusedPicture(t *testing.T) {
	picture := scanBomb(500)
	id := pictureHash(picture)
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	f.options("<show_avatar>1</show_avatar>")
	f.want(wantMetadata)
	f.answers("result", "avatar", items(nsAvatarMetadata, metadata(id, "100")))
	f.want(wantData(id))
	f.answers("result", "avatar-data", data(id, base64.StdEncoding.EncodeToString(picture)))
	f.settled(juliet)
	eventually(t, "the picture is refused", func() bool {
		refused := make(chan bool, 1)
		f.comp.dispatcher.dispatch(t.Context(), juliet, func(ctx context.Context) { refused <- f.comp.board.byJID(juliet).extras.avatar.refused == id })
		return <-refused
	})
	f.advance(time.Minute)
	f.publishes(nsAvatarMetadata, metadata(id, "100"))
	f.settled(juliet)
}
