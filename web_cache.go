package main

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"strconv"
	"sync"
	"weak"

	"github.com/cespare/xxhash/v2"
)

// A rendering is one representation of a snapshot, ready to be sent. It never changes.
type rendering struct {
	renderingKey
	body   []byte
	etag   []string // as the header's values
	length []string // of the body, the same
	next   weak.Pointer[rendering]
	count  int // of those that follow

	zip     sync.Once
	zipped  []byte // by gzip, once that has been asked for
	zipTag  []string
	zipSize []string
}

type renderingKey struct {
	as        *format
	lang      *catalog
	message   int // its index
	freshness freshness
	look      look
}

const (
	maxRenderings = 24  // of one snapshot that are looked through, since strangers choose how many there are
	minZipping    = 600 // bytes
)

// made returns a representation that has been made before and is still there, else nil.
func (s *snapshot) made(key renderingKey) *rendering {
	return nil
}

// render makes a representation, and keeps it for as long as the cache has room.
func (s *snapshot) render(key renderingKey, r *renderer) (*rendering, error) {
	n, err := r.render(key, []view{s.view(key.freshness, key.lang, key.message)}, false)
	if err != nil {
		return nil, err
	}
	return n, nil
}

// A cache keeps the newest renderings in memory. Snapshots refer to them weakly: what has had to go is made again when somebody asks
// for it, so that readers of many pages cost time, not memory.
type cache struct {
	mu   sync.Mutex
	all  []*rendering // the oldest first
	size int          // in bytes, about
	max  int          // the same
}

const maxCache = 16 << 20 // bytes

func (c *cache) add(n *rendering) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, n)
	for c.size += n.size(); c.size > c.max; {
		c.size -= c.all[0].size()
		c.all[0] = nil // the array goes on being there
		c.all = c.all[1:]
	}
}

// size is about what a rendering needs, in bytes.
func (n *rendering) size() int {
	const overhead = 500
	if n.worthZipping() {
		return overhead + len(n.body)*3/2
	}
	return overhead + len(n.body)
}

// worthZipping reports whether gzip makes the body much smaller.
func (n *rendering) worthZipping() bool { return n.as.zips && len(n.body) >= minZipping }

// gzipped returns the body as gzip makes it, which is done when it is first asked for.
func (n *rendering) gzipped() []byte {
	n.zip.Do(func() {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		w.Write(n.body) // writing to a buffer cannot fail
		w.Close()
		n.zipped, n.zipTag, n.zipSize = b.Bytes(), []string{etag(n.body, "-gzip")}, []string{strconv.Itoa(b.Len())}
	})
	return n.zipped
}

func etag(body []byte, suffix string) string {
	sum := binary.BigEndian.AppendUint64(nil, xxhash.Sum64(body))
	return `"` + base64.RawURLEncoding.EncodeToString(sum) + suffix + `"`
}
