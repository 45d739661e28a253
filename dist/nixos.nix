# NixOS module. In configuration.nix:
#
#     imports = [ /path/to/webstatus/dist/nixos.nix ];
#     services.webstatus = {
#       enable = true;
#       secretFile = "/run/keys/webstatus";
#       settings = {
#         domain = "webstatus.example.org";
#         base-url = "https://status.example.org";
#         trusted-proxy = [ "127.0.0.1" "::1" ];
#       };
#     };
#
# The file secretFile contains the component secret, as in the configuration of the XMPP server.
{ config, lib, pkgs, ... }:

let
  cfg = config.services.webstatus;
  text = value:
    if lib.isBool value then lib.boolToString value
    else if lib.isList value then lib.concatMapStringsSep "," toString value
    else toString value;
  variable = name: "WEBSTATUS_" + lib.toUpper (lib.replaceStrings [ "-" ] [ "_" ] name);
in
{
  options.services.webstatus = {
    enable = lib.mkEnableOption "webstatus, which shows XMPP presence on the web";

    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.buildGoModule {
        pname = "webstatus";
        version = "0.1.0";
        src = lib.cleanSource ../.;
        vendorHash = cfg.vendorHash;
        env.CGO_ENABLED = 0;
        doCheck = false; # the tests need servers and a browser
        meta.mainProgram = "webstatus";
      };
      defaultText = lib.literalMD "built from this repository";
      description = "The package to run.";
    };

    vendorHash = lib.mkOption {
      type = lib.types.str;
      default = lib.fakeHash;
      defaultText = lib.literalExpression "lib.fakeHash";
      description = "Hash of the Go modules. The first build fails and prints it.";
    };

    secretFile = lib.mkOption {
      type = lib.types.str;
      example = "/run/keys/webstatus";
      description = "File that contains the component secret. systemd reads it; it is not copied to the Nix store.";
    };

    settings = lib.mkOption {
      type = lib.types.submodule {
        freeformType = with lib.types; attrsOf (oneOf [ bool int str (listOf str) ]);
        options.domain = lib.mkOption {
          type = lib.types.str;
          example = "webstatus.example.org";
          description = "JID of the component, as configured in the XMPP server.";
        };
      };
      default = { };
      description = "Flags of `webstatus serve` without the leading dashes. `webstatus serve --help` lists them.";
    };
  };

  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ cfg.package ];

    systemd.services.webstatus = {
      description = "XMPP presence on the web";
      after = [ "network.target" "prosody.service" "ejabberd.service" ];
      wantedBy = [ "multi-user.target" ];
      startLimitIntervalSec = 0;
      environment = { WEBSTATUS_DB = "/var/lib/webstatus/webstatus.db"; }
        // lib.mapAttrs' (name: value: lib.nameValuePair (variable name) (text value)) cfg.settings;
      serviceConfig = {
        Type = "notify";
        ExecStart = "${lib.getExe cfg.package} serve";
        ExecReload = "${pkgs.coreutils}/bin/kill -HUP $MAINPID";
        LoadCredential = [ "secret:${cfg.secretFile}" ];
        WatchdogSec = "60s";
        Restart = "always";
        RestartSec = "2s";
        DynamicUser = true;
        StateDirectory = "webstatus";
        StateDirectoryMode = "0700";
        UMask = "0077";
        LimitNOFILE = 65536;

        CapabilityBoundingSet = "";
        LockPersonality = true;
        MemoryDenyWriteExecute = true;
        NoNewPrivileges = true;
        PrivateDevices = true;
        PrivateMounts = true;
        PrivateTmp = true;
        PrivateUsers = true;
        ProcSubset = "pid";
        ProtectClock = true;
        ProtectControlGroups = true;
        ProtectHome = true;
        ProtectHostname = true;
        ProtectKernelLogs = true;
        ProtectKernelModules = true;
        ProtectKernelTunables = true;
        ProtectProc = "invisible";
        ProtectSystem = "strict";
        RemoveIPC = true;
        RestrictAddressFamilies = [ "AF_INET" "AF_INET6" "AF_UNIX" ];
        RestrictNamespaces = true;
        RestrictRealtime = true;
        RestrictSUIDSGID = true;
        SystemCallArchitectures = "native";
        SystemCallErrorNumber = "EPERM";
        SystemCallFilter = [ "@system-service" "~@privileged @resources" ];
      };
    };
  };
}
