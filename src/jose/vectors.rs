//! Tokens of nevermined.md section 2.3, for the tests of several modules.

/// The default phrase of both sides, whose key opens most of the tokens here.
pub(crate) const DIGITS: &str = "12345678901234567890123456789012";
/// A phrase without digits: its key is 32 zero bytes.
pub(crate) const LETTERS: &str = "correcthorsebatterystapleabcdefg";
/// From the README: digit key, expired, `headers` is a list.
pub(crate) const README_1: &str = "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4Q0JDLUhTMjU2In0..hI4CMYSs0tqFYdof4hFiUw.2jK41Lgpua6XKZtFvqwjQS3gJDbSs0DVDMNnSW\
    55NVOKVqQqBA1RE2InYpUY3aVJsqdsQ1nT5KpNH-MfwCyk85paoMSTiuHOW1t0bN8dB7PwyMkM5Ubf-8bg3q3rIEpDT7QtQ2M7YbP1t3HL8jhJ\
    ZDStJ_2AYnumUvCVmKDtPUe_FmVdPcW66ta-d3YWKXkwKN1Ajrdnlsav58f-u6wE-qck_UtzqMpOI1ePmK3I-FBTYtSnpyUZrQu3XOXV2TR23k\
    KaUtclhSdtHSMQHug__5Oe2Ibo3QI0AauThAHD6q98BL3iZn9fH2aCsUP2uFifRc0kC2PrWCz1F1upmaKWg2oJ9Yh9YADA95mcOjH_KSM.7tYd\
    cSQ-AS9zdROBRUOh1g";
/// From the README: zero key, expired, `headers` is a list.
pub(crate) const README_2: &str = "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4Q0JDLUhTMjU2In0..1LYqALYanLBQPmsMvPP0ug.For0wiUUMVUAxB6vvhhSjCjSucfb8dgf5pz3v-\
    YJPxiDZ5QMr7oB5ShSUh9OErlDShmqumd-rWRcqfXuns7R6FvDMC457jTZe6P2YyFZ_rsU3TLBiv6cyF7Br3B-wshZIaG_MiKoCZqZQJXtIbZh\
    Ix4TXdtJc7yKLSRkMP_-kSMROLKlrKuwWuLow6_5G-aOyqJkU0CdZJ-iEY42eh4L0YYALZ3LZlDII-Wv45pPm6Yki3DcgCYfpZ7zSEHJpoSXm3\
    wCB4FJ7enKPxQ02ViRMwwJldvQzrPO2XMbGAmg7OVxMN2iI6PaenUQSO76toX04cgsEnEimKUOifY0Gl_MBBFr4R0AAoCdCW7Jxxq0VBsy1H8q\
    VRb29rR2Ql2IRmOX.1ZN258dHRBHZewKNDhwFbQ";
/// Digit key; `{"type":"bearer","token":"svc-secret"}`.
pub(crate) const BEARER: &str = "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4Q0JDLUhTMjU2In0..AAECAwQFBgcICQoLDA0ODw.8tQhghhNmnTjosyiTJJD4Xz9nvOhXnsHubd9Np\
    8ZcsMquIKtL-_5-SuUlSFDjkAZTxzeVy9CUXVj-W1Doe_QWD9d0j_YDjfDYb7RusULnpavmN0wndVFvxle13SULaVcPa3w_SMlwWOiPSN83s1K\
    Fh9lKwG2zFJs-aJ5uW9jptakl4-Y4ve1vY9zNKSQXKLmoZw7FYS07NULE9NalOfqyyqCNyoT_bwDN029rOdsRlBUfbixtxOIp10HV8DX4zyswU\
    3Pertq5q38WZ85PI66o1f3qvGhgy8CDEPMJBqyOS080M8DljuDWug62vK6QDAPmeJdlT39tB6dOLsfG7lHUjbGIZM0kP0_oXyeel89B-Dy7BVO\
    BuyROWxHWQtvfJLE_zpDDhADgr1mpJ6iD19u48kio3TQ8kQZztOfB87Jbv1yITYDI1IvtWgAtRytL_xxGDLgw-BCiYPHlLxw3vMOH_24-vPaL_\
    2poZbQkmlSztu5PZwf7HHE286MZHvWBDcqOzaAWslgwF3RHbYrxKk9BQuBKZtggDZKiTyK7wKy4V97-jo6AKhJIM-3csM0cIPfewCV3GqE5opb\
    pODVcnrRPw.-8p0uhszgvTqieE7W-dtkQ";
/// Digit key; `{"type":"basic","username":"user","password":"password"}`.
pub(crate) const BASIC: &str = "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4Q0JDLUhTMjU2In0..AAECAwQFBgcICQoLDA0ODw.8tQhghhNmnTjosyiTJJD4Xz9nvOhXnsHubd9Np\
    8ZcsMquIKtL-_5-SuUlSFDjkAZTxzeVy9CUXVj-W1Doe_QWD9d0j_YDjfDYb7RusULnpavmN0wndVFvxle13SULaVcPa3w_SMlwWOiPSN83s1K\
    Fh9lKwG2zFJs-aJ5uW9jptakl4-Y4ve1vY9zNKSQXKLmoZw7FYS07NULE9NalOfqyyqCNyoT_bwDN029rOdsRlBUfbixtxOIp10HV8DX4zyswU\
    3Pertq5q38WZ85PI66o1f3qvGhgy8CDEPMJBqyOS080M8DljuDWug62vK6QDAPmeJdlT39tB6dOLsfG7lHUjbGIZM0kP0_oXyeel89B-Dy7BVO\
    BuyROWxHWQtvfJLE_zpDDhADgr1mpJ6iD19u47yZkyDN6hnwLM1OiSF3HIvMkXZQEl53ElKT_d6GZIDZ6kWAIk8t28evNgcFBfA-t9ri1ZmT2O\
    DppDKbMrkjaGejLRRMcT3XXEbvc2-0DnmZ4tHInseLe1Fscc59oIRzk02W_1UJFrnimR3fNT_WK6A7z8tAH5aOolypcCDVuLZlGDuOB8m3ZoH9\
    1EFpbbJkRb58yoX9Vn12_2VFSVzkEzY.9xWSkDZ-L1LHP9eqJKP8aA";
/// Zero key; `{"type":"none"}`.
pub(crate) const NONE: &str = "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4Q0JDLUhTMjU2In0..AAECAwQFBgcICQoLDA0ODw.-be_JC896Vk4iZdrH23i5sg8QwNqA-KnfjC_k9\
    UxEx3OeoEYV4hnd9PDwGE3p-XZ9hyYXWcRZUdPDfOuZ0L3kfN5yIAxFyo4_M6dMAgg-m8PNUpLT1RlsRX4uPhpYxHbF0wWP3w_T4oLxtxdCgyd\
    Q_GBJtMhVVrIvg9hyGIy47NNajVg9eQ3ivFIlaqqJt27paE2FRDuujjMNKI2qVF8ww8PCXJAP80Z0A-UMXsXoCJjuG8Q_-WlnRoQQDXceU4fo0\
    ySIgD4AWqU4jHtV2ViONbD5NTB6w2qkvzwZvXiGQY8CsOHNFsNGQN-Uz9vODlKjtBkk_KNxoveQg0Ao4LCwMJJOgGxDLjWykDnHRjcWkubYMWX\
    XD19AcVl4Cs1TaDRFbe62rZDWX8TaYdO7WhOll9DIoj6aK8_J-kjqRo1ZMoSh2pamRJwkAh9UaJLSQK_l6AMKgi-0JM12vPc2w9aK2APR5hDEQ\
    DtlTCnHIGFtVPavLCAwWSFpDKUbfI90Eeq5ebdBe8E79UnHUhAN75GnnzRY3WaCQxdoodd6cAGgL8.7IamCENciz7VUunafk_SFQ";
