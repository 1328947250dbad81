-- Keys of email addresses that mean the same on every server.
--
-- The function of 0002 took E'\v' for a vertical tab, but before PostgreSQL 16 it is the letter v, so that
-- victim@example.dev had the key ictim@example.de. Its lower() followed the database's locale. This one uses
-- nothing that a version, a locale or a setting decides, and where SQL cannot tell what shared/emails.py
-- makes, it makes no key: the user is put on a list, and Python makes the key from there.

DO $$
BEGIN
    IF current_setting('server_encoding') <> 'UTF8' THEN
        RAISE EXCEPTION 'the database is encoded in %, and must be in UTF8',
            current_setting('server_encoding');
    END IF;
END
$$;

-- Nobody adds a user meanwhile by the old function, whose key nothing would look at any more.
LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE;

-- Users whose key has to be made or checked. former_key is a wrong one that was taken away from the user.
CREATE TABLE IF NOT EXISTS pending_email_keys (
    user_id UUID PRIMARY KEY,
    former_key TEXT
);
-- The trigger acts for whoever writes a user, also for roles that were granted their rights before. A
-- former_key, for which a user's identities are taken away, is not theirs to write.
GRANT INSERT (user_id) ON pending_email_keys TO PUBLIC;

-- Give what email_key() of shared/emails.py gives, or NULL. Letters are those of ASCII, of Latin-1, Latin
-- Extended-A and Cyrillic that have one lower-case letter and mean nothing else in a domain.
CREATE OR REPLACE FUNCTION email_key(address TEXT) RETURNS TEXT
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    -- What Python's str.strip() takes away.
    space CONSTANT TEXT := E'\u0009\u000a\u000b\u000c\u000d\u001c\u001d\u001e\u001f\u0020\u0085\u00a0'
        '\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f'
        '\u205f\u3000';
    upper_letters CONSTANT TEXT :=
        E'\u00c0\u00c1\u00c2\u00c3\u00c4\u00c5\u00c6\u00c7\u00c8\u00c9\u00ca\u00cb\u00cc\u00cd'
         '\u00ce\u00cf\u00d0\u00d1\u00d2\u00d3\u00d4\u00d5\u00d6\u00d8\u00d9\u00da\u00db\u00dc'
         '\u00dd\u00de\u0100\u0102\u0104\u0106\u0108\u010a\u010c\u010e\u0110\u0112\u0114\u0116'
         '\u0118\u011a\u011c\u011e\u0120\u0122\u0124\u0126\u0128\u012a\u012c\u012e\u0134\u0136'
         '\u0139\u013b\u013d\u0141\u0143\u0145\u0147\u014a\u014c\u014e\u0150\u0152\u0154\u0156'
         '\u0158\u015a\u015c\u015e\u0160\u0162\u0164\u0166\u0168\u016a\u016c\u016e\u0170\u0172'
         '\u0174\u0176\u0178\u0179\u017b\u017d\u0400\u0401\u0402\u0403\u0404\u0405\u0406\u0407'
         '\u0408\u0409\u040a\u040b\u040c\u040d\u040e\u040f\u0410\u0411\u0412\u0413\u0414\u0415'
         '\u0416\u0417\u0418\u0419\u041a\u041b\u041c\u041d\u041e\u041f\u0420\u0421\u0422\u0423'
         '\u0424\u0425\u0426\u0427\u0428\u0429\u042a\u042b\u042c\u042d\u042e\u042f';
    lower_letters CONSTANT TEXT :=
        E'\u00e0\u00e1\u00e2\u00e3\u00e4\u00e5\u00e6\u00e7\u00e8\u00e9\u00ea\u00eb\u00ec\u00ed'
         '\u00ee\u00ef\u00f0\u00f1\u00f2\u00f3\u00f4\u00f5\u00f6\u00f8\u00f9\u00fa\u00fb\u00fc'
         '\u00fd\u00fe\u0101\u0103\u0105\u0107\u0109\u010b\u010d\u010f\u0111\u0113\u0115\u0117'
         '\u0119\u011b\u011d\u011f\u0121\u0123\u0125\u0127\u0129\u012b\u012d\u012f\u0135\u0137'
         '\u013a\u013c\u013e\u0142\u0144\u0146\u0148\u014b\u014d\u014f\u0151\u0153\u0155\u0157'
         '\u0159\u015b\u015d\u015f\u0161\u0163\u0165\u0167\u0169\u016b\u016d\u016f\u0171\u0173'
         '\u0175\u0177\u00ff\u017a\u017c\u017e\u0450\u0451\u0452\u0453\u0454\u0455\u0456\u0457'
         '\u0458\u0459\u045a\u045b\u045c\u045d\u045e\u045f\u0430\u0431\u0432\u0433\u0434\u0435'
         '\u0436\u0437\u0438\u0439\u043a\u043b\u043c\u043d\u043e\u043f\u0440\u0441\u0442\u0443'
         '\u0444\u0445\u0446\u0447\u0448\u0449\u044a\u044b\u044c\u044d\u044e\u044f';
    caseless CONSTANT TEXT := E'\u00df\u0131\u0138';
    -- With this collation it is the 26 letters of ASCII that become lower-case, and no others.
    key TEXT := lower(normalize(btrim(address, space), NFC) COLLATE "C");
    rest TEXT := key;
BEGIN
    IF octet_length(key) > char_length(key) THEN
        key = translate(key, upper_letters, lower_letters);
        rest = translate(key, lower_letters || caseless, '');
    END IF;
    IF octet_length(rest) = char_length(rest) AND strpos(key, 'xn--') = 0 THEN
        RETURN key;
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION set_users_email_key() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('ai_coder.as_given', true) = 'on'
        OR (TG_OP = 'INSERT' AND NEW.email_key IS NOT NULL)
        OR (TG_OP = 'UPDATE' AND (NEW.email = OLD.email
            OR NEW.email_key IS DISTINCT FROM OLD.email_key))
    THEN
        RETURN NEW;
    END IF;
    NEW.email_key = email_key(NEW.email);
    IF NEW.email_key IS NULL THEN
        INSERT INTO pending_email_keys (user_id) VALUES (NEW.id) ON CONFLICT DO NOTHING;
    END IF;
    RETURN NEW;
END
$$;

-- A key that is certainly wrong goes at once, because somebody else's address may have it. Whoever has none,
-- or one that SQL cannot judge, is looked at by Python.
INSERT INTO pending_email_keys (user_id, former_key)
SELECT id, CASE WHEN made IS NOT NULL THEN held END
FROM (SELECT id, email_key AS held, email_key(email) AS made FROM users OFFSET 0) u -- Once a row.
WHERE made IS NULL OR held IS DISTINCT FROM made
ON CONFLICT DO NOTHING;

SET LOCAL ai_coder.as_given = 'on';
UPDATE users SET email_key = NULL FROM pending_email_keys p
WHERE p.user_id = users.id AND p.former_key IS NOT NULL;
