package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestBackupUnderWrites copies a database during writes. Each copy must be complete and consistent.
func TestBackupUnderWrites(t *testing.T) {
	t.Parallel()
	db, path := openTestDatabase(t)
	const users = 3000 // enough for a backup in several steps
	var all []User
	for i := range users {
		all = append(all, User{JID: fmt.Sprintf("u%04d@example.org", i), Token: Token{byte(i), byte(i >> 8)}, Subscription: SubscriptionNone, Created: noon})
	}
	if _, _, err := db.InsertUsers(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for round := 0; ; round++ {
			select {
			case <-stop:
				return
			default:
			}
			// Both rows change in one transaction, so a consistent copy has equal states.
			statuses := map[string]Status{all[0].JID: {State: states[round%5]}, all[users-1].JID: {State: states[round%5]}}
			if err := db.StorePresence(t.Context(), presenceBatch{statuses: statuses}); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for i := range 5 {
		other, _, err := inspectDatabase(t.Context(), path, false) // a separate connection, as in the backup command
		if err != nil {
			t.Fatal(err)
		}
		target := filepath.Join(t.TempDir(), fmt.Sprint(i))
		last := 0
		if err := other.backup(t.Context(), target, func(done, total int) { last = 100 * done / total }); err != nil || last != 100 {
			t.Errorf("%d %%: %v", last, err)
		}
		other.Close()
		if info, err := os.Stat(target); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v %v", info.Mode(), err)
		}
		copied, err := openDatabase(t.Context(), target, false)
		if err != nil {
			t.Fatal(err)
		}
		var n int
		var check string
		if err := copied.sql.QueryRow("SELECT count(*), (SELECT * FROM pragma_integrity_check) FROM users").Scan(&n, &check); err != nil || n != users || check != "ok" {
			t.Errorf("%d users, %s, %v", n, check, err)
		}
		first, err1 := copied.GetUser(t.Context(), all[0].JID)
		final, err2 := copied.GetUser(t.Context(), all[users-1].JID)
		if err1 != nil || err2 != nil || first.Status.State != final.Status.State {
			t.Errorf("%s and %s, %v %v", first.Status.State, final.Status.State, err1, err2)
		}
		copied.Close()
	}
	close(stop)
	<-done
}
