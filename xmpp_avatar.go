package main

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"image"
	"image/color"
	_ "image/gif" // a format that people publish
	"image/jpeg"
	"image/png"

	"golang.org/x/image/draw"
	_ "golang.org/x/image/webp" // a format that people publish
)

// Bounds of avatars. Decoding takes time and memory in proportion to pixels, and for a progressive JPEG to pixels × scans.
const (
	maxAvatar      = 1700        // bytes of an encoded avatar, so that a page with it stays below 6 KiB
	maxPicture     = 512 << 10   // bytes of a published picture
	maxPixels      = 2048 * 2048 // of a published picture
	maxPixelScans  = 100 << 20   // of a published JPEG: about a quarter of a second
	maxAvatarQueue = 16          // pictures that wait to be decoded

	pixelsPerSecond = 1 << 20 // of all pictures of one domain, times their scans: about a twentieth of a core
	pixelsAtOnce    = 8 << 20
)

// errPicture is returned for a published picture that cannot be shown.
var errPicture = errors.New("not a PNG, JPEG, GIF or WebP picture within the bounds")

// An avatarDecoder turns published pictures into avatars, one at a time and not on the dispatcher's workers, because a picture takes
// much memory and time.
type avatarDecoder struct{ queue chan avatarJob }

// An avatarJob is a picture to be decoded.
type avatarJob struct {
	picture []byte
	source  AvatarSource
	id      string // published with the picture; empty if unknown
	done    func(ctx context.Context, a *Avatar, err error)
}

func newAvatarDecoder() *avatarDecoder {
	return &avatarDecoder{queue: make(chan avatarJob, maxAvatarQueue)}
}

// add queues a picture, and reports whether there was room.
func (d *avatarDecoder) add(j avatarJob) bool {
	select {
	case d.queue <- j:
		return true
	default:
		return false
	}
}

// run decodes pictures until ctx is done.
func (d *avatarDecoder) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case j := <-d.queue:
			a, err := newAvatar(j.picture, j.source, j.id)
			j.done(ctx, a, err)
		}
	}
}

// pictureHash returns the SHA-1 of a published picture in hexadecimal, which is its id in XEP-0084 and XEP-0153.
func pictureHash(picture []byte) string {
	sum := sha1.Sum(picture)
	return hex.EncodeToString(sum[:])
}

// newAvatar returns the avatar of a published picture. A PEP avatar must have the id that its content has (XEP-0084 §4.2).
func newAvatar(picture []byte, source AvatarSource, id string) (*Avatar, error) {
	hash := pictureHash(picture)
	if source == AvatarPEP && id != hash {
		return nil, fmt.Errorf("%w: its SHA-1 differs from its id", errPicture)
	}
	if id == "" {
		id = hash
	}
	if _, err := checkPicture(picture); err != nil {
		return nil, err
	}
	decoded, _, err := image.Decode(bytes.NewReader(picture))
	if err != nil {
		return nil, fmt.Errorf("%w (%v)", errPicture, err)
	}
	data, err := encodeSmall(shrink(decoded))
	if err != nil {
		return nil, err
	}
	return &Avatar{ID: id, Source: source, Data: data}, nil
}

// checkPicture refuses a picture that would take too much work to decode, and returns the work for others: pixels × scans.
func checkPicture(picture []byte) (work int, err error) {
	if len(picture) > maxPicture {
		return 0, errPicture
	}
	size, format, err := image.DecodeConfig(bytes.NewReader(picture))
	if err != nil || size.Width < 1 || size.Height < 1 || size.Width > maxPixels/size.Height {
		return 0, errPicture
	}
	pixels := max(size.Width*size.Height, 1<<16)
	if format != "jpeg" {
		return pixels, nil
	}
	// Each scan starts with the marker SOS. In a scan's data, 0xFF is always followed by another byte (ITU T.81, B.1.1.2).
	scans := bytes.Count(picture, []byte{0xff, 0xda})
	if scans > maxPixelScans/pixels {
		return 0, fmt.Errorf("%w: %d scans", errPicture, scans)
	}
	return pixels * scans, nil
}

// shrink crops a picture to its middle square and scales it.
func shrink(src image.Image) *image.NRGBA {
	b := src.Bounds()
	side := min(b.Dx(), b.Dy())
	square := image.Rect(0, 0, side, side).Add(b.Min).Add(image.Pt((b.Dx()-side)/2, (b.Dy()-side)/2))
	dst := image.NewNRGBA(image.Rect(0, 0, avatarSize, avatarSize))
	draw.CatmullRom.Scale(dst, dst.Rect, src, square, draw.Src, nil)
	return dst
}

// encodeSmall encodes a picture within maxAvatar bytes. It keeps transparency if that fits, and as much detail as fits.
func encodeSmall(img *image.NRGBA) ([]byte, error) {
	var b bytes.Buffer
	if !img.Opaque() {
		if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, img); err != nil || b.Len() <= maxAvatar {
			return b.Bytes(), err
		}
	}
	flat := image.NewRGBA(img.Rect)
	draw.Draw(flat, flat.Rect, image.NewUniform(color.White), image.Point{}, draw.Src)
	draw.Draw(flat, flat.Rect, img, image.Point{}, draw.Over)
	for quality := 80; ; quality -= 15 {
		b.Reset()
		if err := jpeg.Encode(&b, flat, &jpeg.Options{Quality: quality}); err != nil || b.Len() <= maxAvatar || quality <= 20 {
			return b.Bytes(), err
		}
	}
}
