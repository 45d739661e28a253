package main

import (
	"context"
	"fmt"
	"html/template"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

const demoDomain = "webstatus.verona.example"

// A scene is what one resource does at some point of the play.
type scene struct {
	resource string
	typ      string // "unavailable", or empty
	show     string
	status   string
	priority string
}

// An actor is one of the simulated people.
type actor struct {
	jid    string
	nick   string
	fields string // of the registration
	pause  time.Duration
	scenes []scene

	mu  sync.Mutex
	now map[string]scene // what each connected resource has said last
}

// actors are those who play, with scenes that begin anew after the last.
func actors() []*actor {
	const message, address, nick = "<show_status_msg>1</show_status_msg>", "<show_full_jid>1</show_full_jid>", "<show_nick>1</show_nick>"
	const seen, clients = "<show_last_seen>1</show_last_seen>", "<show_resources>1</show_resources>"
	return []*actor{
		{jid: "juliet@verona.example", nick: "Juliet", fields: message + address + nick, pause: 4 * time.Second, scenes: []scene{
			{resource: "balcony", status: "On the balcony, come by"},
			{resource: "balcony", show: "chat", status: "Talk to me!"},
			{resource: "balcony", show: "away", status: "Back after the ball"},
			{resource: "balcony", typ: "unavailable"},
		}},
		{jid: "romeo@verona.example", nick: "Romeo", fields: message + nick + clients, pause: 5 * time.Second, scenes: []scene{
			{resource: "orchard", status: "In the orchard", priority: "1"},
			{resource: "phone", show: "dnd", status: "Climbing, cannot type", priority: "5"},
			{resource: "phone", typ: "unavailable"},
			{resource: "orchard", show: "away", status: "Looking for the friar", priority: "1"},
		}},
		{jid: "mercutio@verona.example", nick: "Mercutio", fields: message + nick + seen, pause: 7 * time.Second, scenes: []scene{
			{resource: "square", show: "chat", status: "Ask for me tomorrow"},
			{resource: "square", show: "dnd", status: "A plague o’ both your houses"},
			{resource: "square", typ: "unavailable"},
		}},
		{jid: "nurse@verona.example", pause: 6 * time.Second, scenes: []scene{
			{resource: "house"},
			{resource: "house", show: "xa"},
			{resource: "house", show: "away"},
		}},
		{jid: "friar@verona.example", fields: message, pause: 9 * time.Second, scenes: []scene{
			{resource: "cell", show: "away", status: "Gathering herbs"},
			{resource: "cell", show: "dnd", status: "A wedding, in secret"},
			{resource: "cell", status: "Wisely and slow"},
			{resource: "cell", typ: "unavailable"},
		}},
	}
}

func demoCommand() *cobra.Command {
	var conf config
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Everything against a built-in XMPP server with simulated people",
		Long: `Run everything, with a temporary database, against a built-in XMPP server with five simulated people who come and go. No XMPP
server and no configuration is needed. Without --listen a free port is taken if the usual one is not.`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string, problems *usageError) error {
			conf.resolveListen(problems)
			conf.resolveBaseURL(problems)
			log := conf.logger(problems, cmd.ErrOrStderr())
			if err := problems.orNil(); err != nil {
				return err
			}
			listener, err := listen(conf.listen, "listen")
			if err != nil && !cmd.Flags().Changed("listen") {
				listener, err = net.Listen("tcp", "127.0.0.1:0")
			}
			if err != nil {
				return err
			}
			if conf.baseURL == "" {
				conf.baseURL = "http://" + listener.Addr().String()
			}
			return demo(cmd.Context(), cmd.OutOrStdout(), listener, componentConfig{
				domain: demoDomain, secret: "demo", connections: 1, allow: allowList{"*"}, jidLinks: true,
				baseURL: strings.TrimRight(conf.baseURL, "/"), linkTimes: defaultLinkTimes, syncTimes: defaultSyncTimes, log: log,
			})
		}),
	}
	conf.webFlags(cmd.Flags())
	conf.logFlags(cmd.Flags(), "warn")
	return cmd
}

// demo runs until ctx is done.
func demo(ctx context.Context, out io.Writer, listener net.Listener, conf componentConfig) error {
	dir, err := os.MkdirTemp("", "webstatus-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) // what stays is a temporary file
	db, err := openDatabase(ctx, filepath.Join(dir, "webstatus.db"), true)
	if err != nil {
		return err
	}
	defer db.Close()
	defer listener.Close()
	l, err := newLoopback(conf.domain, conf.secret)
	if err != nil {
		return err
	}
	conf.servers = []string{l.address()}
	cast := actors()
	around, err := withDemoPage(cast)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := l.serve(ctx, cast, func() { announce(out, conf.baseURL, cast) })
		if ctx.Err() != nil {
			return nil
		}
		return err
	})
	g.Go(func() error {
		return serveAt(ctx, doors{web: listener}, db, websiteConfig{frameAncestors: "*"}, conf, around)
	})
	return g.Wait()
}

func announce(out io.Writer, baseURL string, cast []*actor) {
	fmt.Fprintf(out, "Five simulated people come and go on a built-in XMPP server; nothing here is real but webstatus.\n\n")
	fmt.Fprintf(out, "  all of them   %s/demo\n", baseURL)
	fmt.Fprintf(out, "  how to join   %s/\n", baseURL)
	for _, a := range cast {
		name, _, _ := strings.Cut(a.jid, "@")
		fmt.Fprintf(out, "  %-12s  %s/status/%s\n", name, baseURL, encodeJID(a.jid))
	}
	fmt.Fprintf(out, "\nAdd .json to a person's address for the same as data. Ctrl-C ends the demo.\n")
}

// withDemoPage puts a page in front of a website that embeds everybody's, as a site of theirs would.
func withDemoPage(cast []*actor) (func(http.Handler) http.Handler, error) {
	t, err := template.ParseFS(embeddedTemplates, "demo.html")
	if err != nil {
		return nil, err
	}
	type person struct{ Name, Page string }
	var people []person
	for _, a := range cast {
		name, _, _ := strings.Cut(a.jid, "@")
		people = append(people, person{strings.ToUpper(name[:1]) + name[1:], "/status/" + encodeJID(a.jid)})
	}
	var page strings.Builder
	if err := t.Execute(&page, people); err != nil {
		return nil, err
	}
	return func(website http.Handler) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("/", website)
		mux.HandleFunc("GET /demo", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header()["Content-Type"] = headerHTML
			io.WriteString(rw, page.String()) // an error means that the client has gone
		})
		return mux
	}, nil
}
