package main

import (
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/maypok86/otter/v2"
)

// A rendering is one representation, ready to be sent. It is immutable. The values of its headers are prepared, since building
// them costs more than everything else in sending a cached response.
type rendering struct {
	format      *format
	body        []byte   // compressed if encoding says so
	encoding    []string // nil for identity
	contentType []string
	vary        []string // nil for none
	etag        []string
	length      []string  // of body, in bytes
	values      [2]string // of etag and length
}

const (
	// minCompressible is the size in bytes above which gzip saves about a packet, and not just its own header.
	minCompressible = 600
	// gzipSuffix tells the entity tag of a compressed body from that of the same body without compression (RFC 9110 §8.8.3.3).
	gzipSuffix = "-gzip"
)

// newRendering returns a body with its headers, compressed if wanted and worth it.
func newRendering(f *format, body []byte, compress bool) *rendering {
	n := &rendering{format: f, contentType: f.contentType}
	if n.contentType == nil {
		n.contentType = []string{http.DetectContentType(body)}
	}
	tag := appendHash(append(make([]byte, 0, 24), '"'), body)
	compressible := f.compressible && len(body) >= minCompressible
	switch {
	case compressible && f.english:
		n.vary = varyEncoding
	case compressible:
		n.vary = varyBoth
	case !f.english:
		n.vary = varyLanguage
	}
	if compress && compressible {
		body = compressGzip(body)
		n.encoding = headerGzip
		tag = append(tag, gzipSuffix...)
	}
	n.values = [2]string{string(append(tag, '"')), strconv.Itoa(len(body))}
	n.body, n.etag, n.length = body, n.values[:1:1], n.values[1:]
	return n
}

// appendHash appends the hash of a body, in base64.
func appendHash(b, body []byte) []byte {
	var sum [8]byte
	binary.BigEndian.PutUint64(sum[:], xxhash.Sum64(body))
	return base64.RawURLEncoding.AppendEncode(b, sum[:])
}

// matches reports whether an entity tag is that of the rendering or of the same one in another encoding: a client that has either
// has this state.
func (n *rendering) matches(tag string) bool { return withoutSuffix(tag) == withoutSuffix(n.values[0]) }

// withoutSuffix returns an entity tag without its last quote and the suffix of its encoding.
func withoutSuffix(tag string) string {
	return strings.TrimSuffix(strings.TrimSuffix(tag, `"`), gzipSuffix)
}

// A renderingKey identifies a rendering. It is small and without pointers into the data of users. It is hashed several times for each
// request, so there are no gaps before the strings, which lets all other fields be hashed as one piece of memory.
type renderingKey struct {
	format   *format
	lang     *catalog
	person   personKey // of one person
	compress bool
	many     bool
	byJID    bool
	people   string // of several people: their personKeys, one after the other
	options  string // empty for the default
}

// A personKey identifies a view of one user. It holds the id of a snapshot instead of the snapshot itself, so that the cache keeps
// no replaced snapshot, with its messages and its avatar, in memory.
type personKey struct {
	snapshot uint64 // 0 for the unknown view
	asOf     int64  // Unix time in nanoseconds
	ageUnit  time.Duration
	ageCount int32
	message  int16 // index
	state    uint8 // in a key that stands for all people with the same state, its index from 1 on; else 0
	expired  bool
}

func newPersonKey(s *snapshot, f freshness, message int) personKey {
	key := personKey{snapshot: s.id, message: int16(message), ageUnit: f.active.unit, ageCount: int32(f.active.count), expired: f.expired}
	if !f.asOf.IsZero() {
		key.asOf = f.asOf.UnixNano()
	}
	return key
}

// append appends the key to those of other people.
func (k *personKey) append(b []byte) []byte {
	b = binary.AppendUvarint(b, k.snapshot)
	b = binary.AppendUvarint(b, uint64(k.message))
	b = binary.AppendUvarint(b, uint64(k.ageCount))
	b = binary.AppendUvarint(b, uint64(k.ageUnit))
	b = binary.AppendVarint(b, k.asOf)
	if k.expired {
		return append(b, 1)
	}
	return append(b, 0)
}

// A renderingCache keeps the renderings that are requested most often, within a bound in bytes. A lookup takes less than
// 0.1 µs, with no lock and no allocation. A rendering that several clients wait for is rendered once.
type renderingCache struct {
	*otter.Cache[renderingKey, *rendering]
}

const (
	maxCacheWeight  = 16 << 20 // bytes
	renderingWeight = 600      // of an entry besides its body: the rendering, the key and the cache's node, in bytes
)

func newRenderingCache(maxWeight uint64) *renderingCache {
	return &renderingCache{otter.Must(&otter.Options[renderingKey, *rendering]{
		MaximumWeight: maxWeight,
		// Evictions take less time than waking a goroutine for them. Neither the weigher nor rendering may change the cache then.
		Executor: func(task func()) { task() },
		Weigher: func(key renderingKey, n *rendering) uint32 {
			return uint32(renderingWeight + len(n.body) + len(key.people) + len(key.options))
		},
	})}
}
