package main

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"image"
	"image/color"
	_ "image/gif" // what people publish
	"image/jpeg"
	"image/png"
	"sync"

	"golang.org/x/image/draw"
	_ "golang.org/x/image/webp" // the same
)

const (
	maxAvatar  = 1700      // bytes, so that a page with it stays below 6 KiB
	maxPicture = 512 << 10 // bytes that are looked at
	maxPixels  = 2048 * 2048
)

// errPicture says that what somebody has published is no picture that we show.
var errPicture = errors.New("not a PNG, JPEG, GIF or WebP picture of a fair size")

// An avatarEncoder makes avatars, one at a time, since a picture takes much memory while it is made.
type avatarEncoder struct{ mu sync.Mutex }

// encode makes an avatar of what somebody has published under an id, which is empty if it is not known. A PEP avatar must
// have the id that its content has (XEP-0084 §4.2).
func (enc *avatarEncoder) encode(picture []byte, source AvatarSource, id string) (*Avatar, error) {
	sum := sha1.Sum(picture)
	hash := hex.EncodeToString(sum[:])
	if source == AvatarPEP && id != hash {
		return nil, fmt.Errorf("%w: its SHA-1 is another than its id", errPicture)
	}
	if id == "" {
		id = hash
	}
	if len(picture) > maxPicture {
		return nil, errPicture
	}
	size, _, err := image.DecodeConfig(bytes.NewReader(picture))
	if err != nil || size.Width < 1 || size.Height < 1 || size.Width > maxPixels/size.Height {
		return nil, errPicture
	}
	enc.mu.Lock()
	defer enc.mu.Unlock()
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

// shrink scales the middle square of a picture.
func shrink(src image.Image) *image.NRGBA {
	b := src.Bounds()
	side := min(b.Dx(), b.Dy())
	square := image.Rect(0, 0, side, side).Add(b.Min).Add(image.Pt((b.Dx()-side)/2, (b.Dy()-side)/2))
	dst := image.NewNRGBA(image.Rect(0, 0, avatarSize, avatarSize))
	draw.CatmullRom.Scale(dst, dst.Rect, src, square, draw.Src, nil)
	return dst
}

// encodeSmall keeps what is transparent unless that takes too much room, and as much detail as there is room for.
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
